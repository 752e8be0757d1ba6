"""The command line is a pure function: golden words, and what must never get into it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, Share, VmConfig
from portlayer.hypervisor.qemu.commandline import Boot, LaunchFiles, build, kernel_arguments
from portlayer.hypervisor.qemu.devices import MAX_DISKS, MAX_NICS, Profile

VM = "0123456789abcdef" * 4
FAST = Boot(
    binary="/usr/bin/qemu-system-x86_64",
    profile=Profile.FAST,
    accelerator="tcg",
    kernel=Path("/g/kernel"),
    initrd=Path("/g/initrd"),
    iso=Path("/g/bootstrap.iso"),
    cmdline="extra=1",
    tsc_khz=2600000,
)
VSPHERE = dataclasses.replace(FAST, profile=Profile.VSPHERE)
FILES = LaunchFiles(
    monitor=10,
    channel=11,
    boot_config=Path("/v/boot.bin"),
    journal=Path("/v/journal"),
    console=Path("/v/console.log"),
    taps={"mt00000000a": 12, "mt00000000b": 13},
)
CONFIG = VmConfig(
    id=VM,
    name="web",
    vcpus=2,
    memory_mib=768,
    disks=(
        Disk(id="root", path=Path("/d/root.vmdk")),
        Disk(id="volume-1", path=Path("/d/v.raw"), read_only=True),
    ),
    nics=(Nic(id="mt00000000a", mac="02:00:00:00:00:01", network="mrbr"),),
)


def options(arguments: list[str], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(arguments) if option == name]


def devices(arguments: list[str]) -> dict[str, dict[str, Any]]:
    return {device["id"]: device for device in map(json.loads, options(arguments, "-device"))}


def test_fast_profile_is_exactly_this() -> None:
    def block(node: str, driver: str, path: str, *, read_only: bool) -> str:
        return json.dumps(
            {
                "node-name": f"node-{node}",
                "driver": driver,
                "read-only": read_only,
                "discard": "unmap",
                "cache": {"direct": False, "no-flush": False},
                "file": {
                    "driver": "file",
                    "node-name": f"file-{node}",
                    "filename": path,
                    "locking": "on",
                    "read-only": read_only,
                },
            }
        )

    def device(**words: object) -> str:
        return json.dumps({key.replace("_", "-"): value for key, value in words.items()})

    def virtio_disk(name: str) -> str:
        return device(
            driver="virtio-blk-pci",
            id=f"disk-{name}",
            bus="hot",
            drive=f"node-{name}",
            serial=name,
            rerror="report",
            werror="report",
        )

    assert build(FAST, CONFIG, FILES) == [
        "/usr/bin/qemu-system-x86_64",
        *("-name", f"mooring-{VM}"),
        *("-uuid", "01234567-89ab-cdef-0123-456789abcdef"),
        *("-nodefaults", "-no-user-config"),
        *("-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "q35,sata=off,smbus=off,i8042=off,vmport=off,smm=off,dump-guest-core=off"),
        *("-accel", "tcg,tb-size=80"),
        *("-cpu", "max,-erms"),
        *("-smp", "2"),
        *("-m", "768M"),
        *("-action", "reboot=shutdown,shutdown=poweroff,panic=shutdown"),
        *("-chardev", "socket,id=monitor,fd=10,server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", "file,id=console,path=/v/console.log,append=on"),
        *("-device", device(driver="isa-serial", id="serial0", chardev="console", index=0)),
        *("-fw_cfg", "name=opt/mooring/boot,file=/v/boot.bin"),
        "-device",
        json.dumps({"driver": "pci-bridge", "id": "hot", "bus": "pcie.0", "chassis_nr": 1}),
        *("-bios", "qboot.rom"),
        *("-kernel", "/g/kernel"),
        *("-initrd", "/g/initrd"),
        "-append",
        "console=ttyS0 quiet reboot=t panic=-1 random.trust_cpu=on 8250.nr_uarts=1 cryptomgr.notests dummy.numdummies=0 "
        "tsc_early_khz=2600000 tsc=reliable no_timer_check noreplace-smp nokaslr no5lvl extra=1",
        *("-device", device(driver="virtio-serial-pci", id="ports", bus="pcie.0")),
        *("-chardev", "socket,id=channel,fd=11,server=on,wait=off"),
        "-device",
        device(
            driver="virtserialport",
            id="port-channel",
            bus="ports.0",
            nr=1,
            chardev="channel",
            name="mooring.channel",
        ),
        *("-chardev", "file,id=journal,path=/v/journal,append=on"),
        "-device",
        device(
            driver="virtserialport",
            id="port-journal",
            bus="ports.0",
            nr=2,
            chardev="journal",
            name="mooring.journal",
        ),
        *("-blockdev", block("root", "vmdk", "/d/root.vmdk", read_only=False)),
        *("-device", virtio_disk("root")),
        *("-blockdev", block("volume-1", "raw", "/d/v.raw", read_only=True)),
        *("-device", virtio_disk("volume-1")),
        *("-netdev", device(type="tap", id="net-mt00000000a", fd="12")),
        "-device",
        device(
            driver="virtio-net-pci",
            id="nic-mt00000000a",
            bus="hot",
            netdev="net-mt00000000a",
            mac="02:00:00:00:00:01",
            romfile="",
        ),
    ]


def test_vsphere_profile_shows_the_hardware_of_esxi() -> None:
    arguments = build(VSPHERE, CONFIG, FILES)
    found = devices(arguments)
    assert {device["driver"] for device in found.values()} == {
        "isa-serial",
        "ide-cd",
        "pci-bridge",
        "pvscsi",
        "scsi-hd",
        "vmxnet3",
    }
    assert found["disk-root"]["serial"] == "root"
    assert found["serial1"] == {"driver": "isa-serial", "id": "serial1", "chardev": "channel", "index": 1}
    assert found["serial2"] == {"driver": "isa-serial", "id": "serial2", "chardev": "journal", "index": 2}
    assert "-kernel" not in arguments
    assert options(arguments, "-boot") == ["order=d"]


def test_scsi_target_seven_is_the_controllers_own() -> None:
    disks = tuple(Disk(id=f"d{n}", path=Path(f"/d/{n}.vmdk")) for n in range(10))
    found = devices(build(VSPHERE, dataclasses.replace(CONFIG, disks=disks), FILES))
    assert [found[f"disk-d{n}"]["scsi-id"] for n in range(10)] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]


def test_disks_and_nics_sit_where_they_can_be_taken_away_from() -> None:
    found = devices(build(FAST, CONFIG, FILES))
    assert {found[name]["bus"] for name in found if name.startswith(("disk-", "nic-"))} == {"hot"}


def test_kvm_uses_the_hosts_processor_and_its_own_clock() -> None:
    boot = dataclasses.replace(FAST, accelerator="kvm")
    arguments = build(boot, CONFIG, FILES)
    assert options(arguments, "-accel") == ["kvm"]
    assert options(arguments, "-cpu") == ["host"]
    words = kernel_arguments(boot, vcpus=1).split()
    assert not {"nokaslr", "noreplace-smp", "no_timer_check", "noapictimer", "tsc=reliable"}.intersection(
        words
    )
    assert "tsc_early_khz" not in kernel_arguments(boot, vcpus=1)


def test_only_a_single_emulated_processor_does_without_its_timer() -> None:
    assert "noapictimer" in kernel_arguments(FAST, vcpus=1).split()
    assert "noapictimer" not in kernel_arguments(FAST, vcpus=2).split()


def test_unknown_counter_frequency_is_left_to_the_guest() -> None:
    assert "tsc" not in kernel_arguments(dataclasses.replace(FAST, tsc_khz=0), vcpus=1)


def test_empty_boot_config_is_not_shown() -> None:
    assert "-fw_cfg" not in build(FAST, CONFIG, dataclasses.replace(FILES, boot_config=None))


def test_commas_in_paths_do_not_end_an_option() -> None:
    files = dataclasses.replace(FILES, journal=Path("/v/a,mode=b/journal"))
    assert "file,id=journal,path=/v/a,,mode=b/journal,append=on" in build(FAST, CONFIG, files)


def test_a_clone_waits_for_its_memory() -> None:
    assert options(build(FAST, CONFIG, dataclasses.replace(FILES, incoming=True)), "-incoming") == ["defer"]


def test_mtu_other_than_ethernets_is_told_to_the_guest() -> None:
    nic = dataclasses.replace(CONFIG.nics[0], mtu=9000)
    found = devices(build(FAST, dataclasses.replace(CONFIG, nics=(nic,)), FILES))
    assert found["nic-mt00000000a"]["host_mtu"] == 9000


def test_nothing_but_json_and_known_words_comes_from_the_configuration() -> None:
    hostile = "x,server=on -monitor stdio"
    with pytest.raises(HypervisorError, match="disk id"):
        build(FAST, dataclasses.replace(CONFIG, disks=(Disk(id=hostile, path=Path("/d.vmdk")),)), FILES)
    with pytest.raises(HypervisorError, match="NIC id"):
        nic = dataclasses.replace(CONFIG.nics[0], id=hostile)
        build(FAST, dataclasses.replace(CONFIG, nics=(nic,)), FILES)
    named = build(FAST, dataclasses.replace(CONFIG, name=hostile), FILES)
    assert not any(hostile in word for word in named)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "../../etc"}, "64 lower-case hex"),
        ({"id": VM.upper()}, "64 lower-case hex"),
        ({"vcpus": 0}, "virtual CPUs"),
        ({"memory_mib": 8}, "MiB of memory"),
        ({"disks": (Disk(id="a", path=Path("rel.vmdk")),)}, "not absolute"),
        ({"disks": (Disk(id="a", path=Path("/d/a.bin")),)}, "is none of"),
        ({"disks": (Disk(id="a" * 21, path=Path("/d/a.vmdk")),)}, "disk id"),
        ({"disks": (Disk(id="a", path=Path("/d/a.vmdk")), Disk(id="a", path=Path("/d/b.vmdk")))}, "twice"),
        ({"nics": (Nic(id="mt1", mac="02:00", network="b"),)}, "MAC address"),
        ({"nics": (Nic(id="mt1", mac="02:00:00:00:00:01", network="b", mtu=1),)}, "MTU"),
        (
            {
                "nics": (
                    Nic(id="mt1", mac="02:00:00:00:00:0a", network="b"),
                    Nic(id="mt2", mac="02:00:00:00:00:0A", network="b"),
                )
            },
            "twice",
        ),
        (
            {"nics": tuple(Nic(id=f"mt{n}", mac=f"02:00:00:00:00:{n:02x}", network="b") for n in range(9))},
            "9 NICs",
        ),
    ],
)
def test_impossible_hardware_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HypervisorError, match=message):
        build(FAST, dataclasses.replace(CONFIG, **change), FILES)


@pytest.mark.parametrize("profile", list(Profile))
def test_the_promised_number_of_devices_fits(profile: Profile) -> None:
    disks = tuple(Disk(id=f"d{n}", path=Path(f"/d/{n}.vmdk")) for n in range(MAX_DISKS[profile]))
    nics = tuple(
        Nic(id=f"mt{n}", mac=f"02:00:00:00:00:{n:02x}", network="b") for n in range(MAX_NICS[profile])
    )
    files = dataclasses.replace(FILES, taps={nic.id: 20 for nic in nics})
    config = dataclasses.replace(CONFIG, disks=disks, nics=nics)
    build(dataclasses.replace(FAST, profile=profile), config, files)
    one_more = (*disks, Disk(id="more", path=Path("/d/more.vmdk")))
    with pytest.raises(HypervisorError, match="are possible"):
        build(dataclasses.replace(FAST, profile=profile), dataclasses.replace(config, disks=one_more), files)


def test_vsphere_profile_without_an_iso_is_refused() -> None:
    with pytest.raises(HypervisorError, match=r"bootstrap\.iso"):
        build(dataclasses.replace(VSPHERE, iso=None), CONFIG, FILES)


def test_shares_have_memory_that_virtiofsd_can_reach() -> None:
    assert "memory-backend" not in " ".join(build(FAST, CONFIG, FILES))
    config = dataclasses.replace(CONFIG, shares=(Share(tag="host-1", path=Path("/srv")),))
    arguments = build(FAST, config, dataclasses.replace(FILES, shares={"host-1": 14}))
    memory = json.loads(next(value for value in options(arguments, "-object") if "memfd" in value))
    assert (memory["size"], memory["share"]) == (768 << 20, True)
    assert "memory-backend=ram" in options(arguments, "-machine")
    assert "socket,id=share-host-1,fd=14" in options(arguments, "-chardev")
    assert devices(arguments)["share-host-1"]["tag"] == "host-1"
    assert "/srv" not in " ".join(arguments)


@pytest.mark.parametrize("share", [Share(tag="a,b", path=Path("/x")), Share(tag="a", path=Path("x"))])
def test_odd_shares_are_refused(share: Share) -> None:
    with pytest.raises(HypervisorError, match="share"):
        build(FAST, dataclasses.replace(CONFIG, shares=(share,)), FILES)
