"""Device specs from configurations, and the differences a start must make."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, VmConfig
from portlayer.hypervisor.vsphere import hardware
from portlayer.hypervisor.vsphere.hardware import Layout
from portlayer.hypervisor.vsphere.places import DatastoreMap

PLACES = DatastoreMap("ds", Path("/ds"))
LAYOUT = Layout(directory="[ds] vms/x", iso="[ds] boot.iso")
A, B = Disk(id="a", path=Path("/ds/a.vmdk")), Disk(id="b", path=Path("/ds/b.vmdk"), read_only=True)
NIC = Nic(id="p1", mac="02:00:00:00:00:01", network="pg")
CONFIG = VmConfig(id="ab" * 32, name="web", memory_mib=256)
BACKINGS = {"p1": vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="pg")}


def created() -> list[Any]:
    """The devices of a new VM, as the server keeps them."""
    devices = [change.device for change in hardware.create_spec(CONFIG, LAYOUT, {}).deviceChange]
    for number, device in enumerate(devices):
        device.key = 1000 + number
    return devices


def started(config: VmConfig, devices: list[Any]) -> tuple[list[tuple[str, str]], dict[str, str], list[Any]]:
    """(operation, device) of what a start changes, the addresses, and the devices afterwards."""
    channel = hardware.edit_serial(hardware.serial_devices(devices).channel, uri="tcp://h:1")
    spec, addresses = hardware.start_spec(devices, config, PLACES, BACKINGS, channel)
    after, said = list(devices), []
    for change in spec.deviceChange[1:]:
        assert change.fileOperation is None, "files are the caller's"
        said.append((change.operation, type(change.device).__name__.rsplit(".", 1)[-1]))
        if change.operation == "remove":
            after = [d for d in after if d.key != change.device.key]
        else:
            change.device.key = 5000 + len(after)
            after.append(change.device)
    return said, addresses, after


def test_a_new_vm_has_controller_cdrom_and_three_serial_ports_in_order() -> None:
    devices = created()
    kinds = [type(device).__name__.rsplit(".", 1)[-1] for device in devices]
    assert kinds == ["ParaVirtualSCSIController", "VirtualCdrom", *["VirtualSerialPort"] * 3]
    ports = hardware.serial_devices(devices)
    assert devices[2:] == [ports.console, ports.channel, ports.journal]


def test_memory_comes_in_steps_of_4_mib() -> None:
    assert hardware.create_spec(dataclasses.replace(CONFIG, memory_mib=139), LAYOUT, {}).memoryMB == 140


def test_a_start_adds_what_is_configured_and_the_next_one_nothing() -> None:
    config = dataclasses.replace(CONFIG, disks=(A, B), nics=(NIC,))
    said, addresses, devices = started(config, created())
    assert said == [("add", "VirtualDisk"), ("add", "VirtualDisk"), ("add", "VirtualVmxnet3")]
    assert addresses == {"a": "0:0:0:0", "b": "0:0:1:0"}
    assert [disk.backing.diskMode for disk in hardware.disks(devices)] == [
        "independent_persistent",
        "independent_nonpersistent",
    ]
    assert started(config, devices)[:2] == ([], addresses)


def test_a_start_takes_away_what_is_not_configured_any_more() -> None:
    _, _, devices = started(dataclasses.replace(CONFIG, disks=(A, B), nics=(NIC,)), created())
    said, addresses, after = started(dataclasses.replace(CONFIG, disks=(B,)), devices)
    assert said == [("remove", "VirtualDisk"), ("remove", "VirtualVmxnet3")]
    assert addresses == {"b": "0:0:1:0"}
    assert hardware.nics(after) == []


def test_a_disk_that_became_read_only_is_attached_anew() -> None:
    _, _, devices = started(dataclasses.replace(CONFIG, disks=(A,)), created())
    frozen = dataclasses.replace(A, read_only=True)
    said, addresses, _ = started(dataclasses.replace(CONFIG, disks=(frozen,)), devices)
    assert said == [("remove", "VirtualDisk"), ("add", "VirtualDisk")]
    assert addresses == {"a": "0:0:0:0"}


def test_units_leave_out_the_controllers_own() -> None:
    many = tuple(Disk(id=f"d{n}", path=Path(f"/ds/d{n}.vmdk")) for n in range(hardware.MAX_DISKS))
    _, addresses, _ = started(dataclasses.replace(CONFIG, disks=many), created())
    units = [int(address.split(":")[2]) for address in addresses.values()]
    assert units == [n for n in range(16) if n != 7]


def test_a_vm_whose_ports_were_changed_is_refused() -> None:
    with pytest.raises(HypervisorError, match="serial ports were changed"):
        hardware.serial_devices(created()[:-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "short"}, "64 lower-case"),
        ({"vcpus": 0}, "virtual CPUs"),
        ({"memory_mib": 31}, "at least 32"),
        ({"disks": (A, A)}, "twice"),
        ({"disks": (Disk(id="a", path=Path("/ds/a.raw")),)}, "no .vmdk"),
        ({"disks": (Disk(id="a b", path=Path("/ds/a.vmdk")),)}, "disk id"),
        ({"nics": (dataclasses.replace(NIC, mac="x"),)}, "MAC"),
        ({"nics": (NIC, dataclasses.replace(NIC, id="p2"))}, "MAC address .* twice"),
        (
            {"disks": tuple(Disk(id=f"d{n}", path=Path(f"/ds/{n}.vmdk")) for n in range(16))},
            "15 are possible",
        ),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(HypervisorError, match=words):
        hardware.check_config(dataclasses.replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("web", "web-abababababab"), ("a/b%", "a%2fb%25-abababababab"), ("", "container-abababababab")],
)
def test_names_are_what_vsphere_takes(name: str, shown: str) -> None:
    assert hardware.display_name(dataclasses.replace(CONFIG, name=name)) == shown
    assert len(hardware.display_name(dataclasses.replace(CONFIG, name="x" * 200))) == 80


@pytest.mark.parametrize("path", ["/elsewhere/x", "/ds/../etc/x", "/dsx/x"])
def test_paths_stay_on_their_datastore(path: str) -> None:
    with pytest.raises(HypervisorError):
        PLACES.remote(Path(path))


@pytest.mark.parametrize("path", ["[other] x", "x", "[ds] ../x", "[ds] /etc/x"])
def test_remote_paths_stay_there_too(path: str) -> None:
    with pytest.raises(HypervisorError):
        PLACES.local(path)
    assert PLACES.local(PLACES.remote(Path("/ds/a/b c.vmdk"))) == Path("/ds/a/b c.vmdk")
