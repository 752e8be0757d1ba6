"""Real guests: what the API says is what the guest sees, and what the guest does is what the API says.

One VM lives through most of the module; each boot costs seconds of CPU.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.contract.namespace import private_network
from tests.lab.concentrator import BEGIN, COMPLETE, DO_PROXY, PEER, UUID, Concentrator
from tests.lab.conftest import links
from tests.lab.guest import Shell
from tests.lab.process import LabProcess
from tests.lab.test_disks import create_disk
from tests.lab.vcenter import (
    Device,
    VCenter,
    cdrom,
    disk,
    edit,
    nic,
    pvscsi,
    remove,
    serial_file,
    serial_uri,
)

pytestmark = pytest.mark.system


@dataclass
class Guest:
    vm: Any
    shell: Shell
    listener: socket.socket

    def accept(self) -> Shell:
        self.listener.settimeout(120)
        return Shell(self.listener.accept()[0])


def devices(vcenter: VCenter, port: int, *, console: str, **options: str) -> list[Any]:
    return [
        pvscsi(),
        cdrom("[LocalDS_0] iso/guest.iso"),
        nic(vcenter.portgroup()),
        serial_file(f"[LocalDS_0] {console}"),
        serial_uri(f"tcp://127.0.0.1:{port}", **options),
        serial_file("[LocalDS_0] journal"),
    ]


@pytest.fixture(scope="module")
def guest(host: VCenter) -> Iterator[Guest]:
    listener = socket.create_server(("127.0.0.1", 0))
    create_disk(host, "[LocalDS_0] image.vmdk")
    vm = host.create(
        "guest",
        *devices(host, listener.getsockname()[1], console="console"),
        disk("[LocalDS_0] root.vmdk", parent="[LocalDS_0] image.vmdk"),
        memory=160,
        **{"guestinfo.first": "from the host", "disk.EnableUUID": "TRUE"},
    )
    host.power_on(vm)
    made = Guest(vm, Shell(listener.accept()[0]), listener)
    made.shell.until("ready\n")
    yield made
    made.shell.close()
    listener.close()


def appears(shell: Shell, path: str) -> None:
    shell.run(f"while [ ! -e {path} ]; do sleep 0.1; done")


def test_the_guest_boots_from_the_iso_with_its_devices(host: VCenter, guest: Guest) -> None:
    (root,) = host.devices(guest.vm, Device.VirtualDisk)
    serial = guest.shell.run("tail -c 32 /sys/block/sda/device/vpd_pg80")
    assert serial == root.backing.uuid.replace("-", "")
    assert guest.shell.run("cat /sys/block/sda/size") == str(16 * 2048)
    (card,) = host.devices(guest.vm, Device.VirtualVmxnet3)
    assert guest.shell.run("cat /sys/class/net/eth0/address") == card.macAddress
    assert host.read(guest.vm, "guest.toolsRunningStatus") == "guestToolsRunning"
    (reported,) = host.read(guest.vm, "guest.net")
    assert (reported.macAddress, reported.network) == (card.macAddress, "DC0_DVPG0")


def test_guestinfo_goes_both_ways_while_it_runs(host: VCenter, guest: Guest) -> None:
    at_boot = guest.shell.run("cat /sys/firmware/qemu_fw_cfg/by_name/opt/guestinfo.first/raw")
    assert at_boot == "from the host"
    host.set_extra(guest.vm, **{"guestinfo.first": "changed"})
    assert guest.shell.run("rpc info-get guestinfo.first") == "1 changed"
    assert guest.shell.run("rpc info-set guestinfo.state up and running") == "1"
    assert host.extra(guest.vm)["guestinfo.state"] == "up and running"


def test_a_child_disk_is_plugged_in_and_out(booting: LabProcess, host: VCenter, guest: Guest) -> None:
    create_disk(host, "[LocalDS_0] parent.vmdk")
    parent = (booting.datastore / "parent.vmdk").read_bytes()
    host.reconfigure(
        guest.vm, disk("[LocalDS_0] hot.vmdk", controller=1000, unit=-1, parent="[LocalDS_0] parent.vmdk")
    )
    appears(guest.shell, "/sys/block/sdb/device")
    guest.shell.run("echo written | dd of=/dev/sdb bs=512 conv=sync,fsync 2>/dev/null")
    (hot,) = [d for d in host.devices(guest.vm, Device.VirtualDisk) if d.unitNumber == 1]
    host.reconfigure(guest.vm, remove(hot))
    guest.shell.run("while [ -e /sys/block/sdb ]; do sleep 0.1; done")
    assert (booting.datastore / "parent.vmdk").read_bytes() == parent
    raw = subprocess.run(
        ["qemu-io", "-r", "-f", "vmdk", "-c", "read -v 0 8", booting.datastore / "hot.vmdk"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "written" in raw.stdout


def test_a_nic_is_plugged_in_and_out_and_reaches_the_bridge(
    booting: LabProcess, host: VCenter, guest: Guest
) -> None:
    host.reconfigure(guest.vm, nic(host.portgroup("DC0_DVPG1")))
    appears(guest.shell, "/sys/class/net/eth1")
    bridge = booting.ready["networks"]["DC0_DVPG1"]
    subprocess.run(["ip", "address", "add", "10.9.0.1/24", "dev", bridge], check=True)
    guest.shell.run("ifconfig eth1 10.9.0.2 up; ping -c 1 -W 20 10.9.0.1 >/dev/null")
    second = host.devices(guest.vm, Device.VirtualVmxnet3)[1]
    second.connectable.connected = False
    host.reconfigure(guest.vm, edit(second))
    guest.shell.run('while [ "$(cat /sys/class/net/eth1/carrier)" != 0 ]; do sleep 0.1; done')
    host.reconfigure(guest.vm, remove(second))
    guest.shell.run("while [ -e /sys/class/net/eth1 ]; do sleep 0.1; done")


def test_serial_ports_are_changed_while_it_runs(booting: LabProcess, host: VCenter, guest: Guest) -> None:
    guest.shell.run("stty -F /dev/ttyS2 raw; echo one >/dev/ttyS2")
    _, network, journal = host.devices(guest.vm, Device.VirtualSerialPort)
    journal.backing.fileName = "[LocalDS_0] journal.2"
    host.reconfigure(guest.vm, edit(journal))
    guest.shell.run("echo two >/dev/ttyS2")
    assert (booting.datastore / "journal").read_text() == "one\n"
    assert (booting.datastore / "journal.2").read_text() == "two\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        network.backing.serviceURI = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        host.reconfigure(guest.vm, edit(network))
        moved = Shell(other.accept()[0])
        assert moved.run("echo here") == "here"
        network.backing.serviceURI = f"tcp://127.0.0.1:{guest.listener.getsockname()[1]}"
        host.reconfigure(guest.vm, edit(network))
        guest.shell.close()
        guest.shell = guest.accept()
        moved.close()
    assert guest.shell.run("echo back") == "back"


def test_a_proxied_port_speaks_telnet_and_survives_vmotion(host: VCenter, guest: Guest) -> None:
    _, network, _ = host.devices(guest.vm, Device.VirtualSerialPort)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        network.backing.proxyURI = f"telnet://127.0.0.1:{listener.getsockname()[1]}"
        network.backing.serviceURI = "tcp://127.0.0.1:2379"
        host.reconfigure(guest.vm, edit(network))
        first = Concentrator(listener.accept()[0])
        assert first.listen_for(DO_PROXY) == b"Ctcp://127.0.0.1:2379"
        uuid = first.listen_for(UUID).decode().replace(" ", "").replace("-", "")
        assert uuid == host.read(guest.vm, "config.instanceUuid").replace("-", "")
        shell = Shell(first)
        assert shell.run("printf '\\377'") == "\N{REPLACEMENT CHARACTER}"  # 0xff, escaped on the way
        here = host.read(guest.vm, "runtime.host")
        there = next(h for h in host.read(host.cluster, "host") if h != here)
        moving = guest.vm.MigrateVM_Task(None, there, "defaultPriority", None)
        first.listen_for(BEGIN)
        second = Concentrator(listener.accept()[0])
        assert second.listen_for(PEER).endswith(b"\xff\x01\x02\x03")
        second.listen_for(COMPLETE)
        host.wait(moving)
        moved = Shell(second)
        assert moved.run("echo over there") == "over there"
        network.backing.proxyURI = None
        network.backing.serviceURI = f"tcp://127.0.0.1:{guest.listener.getsockname()[1]}"
        host.reconfigure(guest.vm, edit(network))
        guest.shell.close()
        guest.shell = guest.accept()
        first.close()
        second.close()


def test_a_suspended_guest_stands_still(host: VCenter, guest: Guest) -> None:
    host.wait(guest.vm.SuspendVM_Task())
    guest.shell.send("echo awake")
    assert host.read(guest.vm, "runtime.powerState") == "suspended"
    host.power_on(guest.vm)
    assert guest.shell.until("[done 0]\n").strip() == "awake"


def test_a_snapshot_brings_memory_and_disk_back(host: VCenter, guest: Guest) -> None:
    guest.shell.run("echo then >/tmp/memory; echo then | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null")
    then = host.wait(guest.vm.CreateSnapshot_Task("then", "", True, False))
    guest.shell.run("echo now >/tmp/memory; echo now | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null")
    host.wait(then.RevertToSnapshot_Task())
    guest.shell.close()
    guest.shell = guest.accept()
    assert guest.shell.run("cat /tmp/memory") == "then"
    assert guest.shell.run("echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/sda") == "then"
    assert host.read(guest.vm, "guest.toolsRunningStatus") == "guestToolsRunning"
    host.wait(guest.vm.RemoveAllSnapshots_Task())
    assert guest.shell.run("echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/sda") == "then"


def test_an_instant_clone_goes_on_where_its_parent_is(host: VCenter, guest: Guest) -> None:
    guest.shell.run("echo shared >/tmp/memory")
    spec = vim.vm.InstantCloneSpec(
        name="child",
        location=vim.vm.RelocateSpec(),
        config=[vim.option.OptionValue(key="guestinfo.first", value="child")],
    )
    clone = host.wait(guest.vm.InstantClone_Task(spec))
    shell = guest.accept()
    assert shell.run("cat /tmp/memory") == "shared"
    assert shell.run("rpc info-get guestinfo.first") == "1 child"
    shell.run("echo mine >/tmp/memory; echo mine | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null")
    assert guest.shell.run("cat /tmp/memory") == "shared"
    assert guest.shell.run("echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/sda") == "then"
    shell.close()
    clone.TerminateVM()
    host.until(clone, ["runtime.powerState"], lambda v: v["runtime.powerState"] == "poweredOff")
    host.reconfigure(clone, *[remove(d) for d in host.devices(clone, Device.VirtualDisk)])
    host.destroy(clone)


def test_a_reset_boots_it_again(host: VCenter, guest: Guest) -> None:
    host.wait(guest.vm.ResetVM_Task())
    guest.shell.until("ready\n")
    assert guest.shell.run("ls /tmp") == "answers"


def test_a_guest_is_asked_to_shut_down(booting: LabProcess, host: VCenter, guest: Guest) -> None:
    guest.vm.ShutdownGuest()
    host.until(guest.vm, ["runtime.powerState"], lambda v: v["runtime.powerState"] == "poweredOff")
    assert host.read(guest.vm, "guest.toolsRunningStatus") == "guestToolsNotRunning"
    assert booting.vm("guest")["pid"] == 0
    assert "Power down" in (booting.datastore / "console").read_text()


def test_a_server_port_is_listened_on_and_the_guest_powers_itself_off(host: VCenter, guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, network, _ = host.devices(guest.vm, Device.VirtualSerialPort)
    network.backing.serviceURI = f"tcp://127.0.0.1:{port}"
    network.backing.direction = "server"
    host.reconfigure(guest.vm, edit(network))
    host.power_on(guest.vm)
    shell = Shell(socket.create_connection(("127.0.0.1", port)))
    shell.until("ready\n")
    shell.send("poweroff -f")
    host.until(guest.vm, ["runtime.powerState"], lambda v: v["runtime.powerState"] == "poweredOff")
    shell.close()


def test_what_qemu_refuses_is_the_tasks_fault(host: VCenter) -> None:
    vm = host.create("broken", cdrom("[LocalDS_0] iso/none.iso"))
    with pytest.raises(vim.fault.GenericVmConfigFault, match=r"none\.iso"):
        host.power_on(vm)
    assert host.read(vm, "runtime.powerState") == "poweredOff"
    host.destroy(vm)


def test_a_killed_lab_leaves_no_process_and_the_next_sweeps(tmp_path: Path, guest_iso: Path) -> None:
    with private_network():
        killed = LabProcess(tmp_path)
        (killed.datastore / "iso").mkdir()
        (killed.datastore / "iso/guest.iso").write_bytes(guest_iso.read_bytes())
        client = VCenter(killed)
        vm = client.create("victim", cdrom("[LocalDS_0] iso/guest.iso"), nic(client.portgroup()))
        client.power_on(vm)
        pid = killed.vm("victim")["pid"]
        handle = os.pidfd_open(pid)
        assert len(links()) == 2  # the bridge and the NIC's tap
        client.close()
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        assert killed.process.stdout is not None
        killed.process.stdout.close()
        _wait_for_end(handle)
        assert len(links()) == 1
        after = LabProcess(tmp_path)
        assert links() == set()
        assert len(list((tmp_path / "runs").iterdir())) == 1
        after.close()


def _wait_for_end(pidfd: int) -> None:
    try:
        assert select.select([pidfd], [], [], 30)[0], "QEMU outlives the lab"
    finally:
        os.close(pidfd)
