"""The command line of one VM, as a pure function of its configuration.

Nothing is read and nothing opened here. What QEMU must not be able to reach by
name is passed as an open descriptor (monitor, channel, taps); the paths that
remain are files of this VM, its disks and the boot files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portlayer.hypervisor.base import HypervisorError, VmConfig
from portlayer.hypervisor.qemu.devices import (
    HOT_BRIDGE,
    Profile,
    check_config,
    disk_backend,
    disk_device,
    free_target,
    nic_backend,
    nic_device,
    share_device,
)

__all__ = ["Boot", "LaunchFiles", "build", "kernel_arguments", "process_name"]

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# QEMU's own; it knows how to start a kernel and nothing else: a tenth of a boot less than a BIOS.
FIRMWARE = "qboot.rom"
# QEMU's default reserves 1 GiB per VM and fills 200 MB of it. A start makes 66 MiB; when one more does not
# fit, all are made anew.
TRANSLATION_CACHE_MIB = 80


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What all VMs of one VCH start from."""

    binary: str
    profile: Profile
    accelerator: str  # "kvm" | "tcg"
    kernel: Path
    initrd: Path
    iso: Path | None = None
    cmdline: str = ""
    tsc_khz: int = 0  # 0 = let the guest calibrate


@dataclass(frozen=True, kw_only=True)
class LaunchFiles:
    """What one start hands over: descriptors by number, files by path."""

    monitor: int
    channel: int
    boot_config: Path | None
    journal: Path
    console: Path
    taps: Mapping[str, int] = field(default_factory=dict)  # NIC id -> descriptor
    shares: Mapping[str, int] = field(default_factory=dict)  # tag -> descriptor, connected to its virtiofsd
    incoming: bool = False  # wait for a saved memory state instead of booting


def process_name(vm: str) -> str:
    """The word by which a QEMU process is recognised as this VM's."""
    return f"mooring-{vm}"


def kernel_arguments(boot: Boot, *, vcpus: int) -> str:
    """The guest kernel's command line (direct boot only; an ISO brings its own)."""
    words = ["console=ttyS0", "quiet", "reboot=t", "panic=-1", "random.trust_cpu=on", "8250.nr_uarts=1"]
    words.append("cryptomgr.notests")  # each algorithm's self-test: 0.6 s of a distribution kernel's boot
    words.append("dummy.numdummies=0")  # a container without a network has lo and nothing else
    if boot.accelerator == "tcg":
        words.extend(_spared_by_emulation(boot.tsc_khz, vcpus))
    words.extend(boot.cmdline.split())
    return " ".join(words)


def _spared_by_emulation(tsc_khz: int, vcpus: int) -> Sequence[str]:
    """Words that keep an emulated kernel from a third of its boot: waiting loops, and rewriting itself."""
    words = []
    if tsc_khz:
        # Calibration against an emulated timer takes time and fails on a loaded host; so would
        # the watchdog that compares the counter, the host's own, with it later.
        words += [f"tsc_early_khz={tsc_khz}", "tsc=reliable"]
    # Watching whether the timer ticks: 50 ms. Taking the lock prefix off 9,000 instructions, each with
    # two changes of the address space: 150 ms, and the emulator knows when it needs no lock.
    words += ["no_timer_check", "noreplace-smp"]
    # Of a distribution's kernel: finding and moving to a random address is 0.3 s; a fifth level of page
    # tables makes every miss of the emulated TLB dearer.
    words += ["nokaslr", "no5lvl"]
    if vcpus == 1:
        # The local timer is calibrated for 100 ms; one processor can do with the HPET.
        words.append("noapictimer")
    return words


def build(boot: Boot, config: VmConfig, files: LaunchFiles) -> list[str]:
    """The whole argument vector.

    Raises:
        HypervisorError: the configuration cannot be a VM of this profile.
    """
    check_config(config, boot.profile)
    arguments = [
        boot.binary,
        *("-name", process_name(config.id)),
        *("-uuid", str(uuid.UUID(config.id[:32]))),
        *("-nodefaults", "-no-user-config"),
        *("-display", "none"),
        *("-sandbox", SANDBOX),
        *("-machine", _machine(boot.profile)),
        *_processor(boot.accelerator),
        *("-smp", str(config.vcpus)),
        *("-m", f"{config.memory_mib}M"),
        *("-action", "reboot=shutdown,shutdown=poweroff,panic=shutdown"),
        *("-chardev", f"socket,id=monitor,fd={files.monitor},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"file,id=console,path={_escaped(files.console)},append=on"),
        *_json("-device", {"driver": "isa-serial", "id": "serial0", "chardev": "console", "index": 0}),
    ]
    if files.boot_config is not None:
        arguments += ("-fw_cfg", f"name=opt/mooring/boot,file={_escaped(files.boot_config)}")
    bridge = {"driver": "pci-bridge", "id": HOT_BRIDGE, "bus": "pcie.0", "chassis_nr": 1}
    arguments += _json("-device", bridge)
    if boot.profile is Profile.FAST:
        arguments += _fast(boot, config, files)
    else:
        arguments += _vsphere(boot, files)
    arguments += _disks(boot.profile, config)
    arguments += _nics(boot.profile, config, files)
    arguments += _shares(config, files)
    if files.incoming:
        arguments += ("-incoming", "defer")
    return arguments


def _machine(profile: Profile) -> str:
    if profile is Profile.FAST:
        # Each of these is a device that the guest's kernel would wait for or probe.
        return "q35,sata=off,smbus=off,i8042=off,vmport=off,smm=off,dump-guest-core=off"
    # Not pc: its IDE CD-ROM takes the firmware 3.6 s (emulated) for an initramfs of 37 MB, AHCI 0.1 s.
    return "q35,smm=off,dump-guest-core=off"


def _processor(accelerator: str) -> Sequence[str]:
    if accelerator == "kvm":
        return ("-accel", "kvm", "-cpu", "host")
    if accelerator == "tcg":
        # Without "erms": emulated byte by byte, fast string moves make a 32 KiB copy ten times slower.
        return ("-accel", f"tcg,tb-size={TRANSLATION_CACHE_MIB}", "-cpu", "max,-erms")
    raise HypervisorError(f"accelerator {accelerator!r}: expected kvm or tcg")


def _fast(boot: Boot, config: VmConfig, files: LaunchFiles) -> list[str]:
    # No virtio-rng: the kernel takes its seed from the processor (random.trust_cpu), which under
    # TCG is the host's getrandom(2), and a device costs 30 ms.
    return [
        *("-bios", FIRMWARE),
        *("-kernel", str(boot.kernel)),
        *("-initrd", str(boot.initrd)),
        *("-append", kernel_arguments(boot, vcpus=config.vcpus)),
        *_json("-device", {"driver": "virtio-serial-pci", "id": "ports", "bus": "pcie.0"}),
        *("-chardev", f"socket,id=channel,fd={files.channel},server=on,wait=off"),
        *_port("channel", 1),
        *("-chardev", f"file,id=journal,path={_escaped(files.journal)},append=on"),
        *_port("journal", 2),
    ]


def _port(name: str, number: int) -> Sequence[str]:
    port = {
        "driver": "virtserialport",
        "id": f"port-{name}",
        "bus": "ports.0",
        "nr": number,
        "chardev": name,
        "name": f"mooring.{name}",
    }
    return _json("-device", port)


def _vsphere(boot: Boot, files: LaunchFiles) -> list[str]:
    if boot.iso is None:
        raise HypervisorError("machine profile vsphere: the VCH has no bootstrap.iso (guest.iso)")
    media = {
        "node-name": "media",
        "driver": "raw",
        "read-only": True,
        "file": {"driver": "file", "filename": str(boot.iso), "read-only": True},
    }
    return [
        *("-boot", "order=d"),
        *_json("-blockdev", media),
        *_json("-device", {"driver": "ide-cd", "id": "cdrom", "bus": "ide.0", "drive": "media"}),
        *_json("-device", {"driver": "pvscsi", "id": "scsi0", "bus": "pcie.0"}),
        *("-chardev", f"socket,id=channel,fd={files.channel},server=on,wait=off"),
        *_json("-device", {"driver": "isa-serial", "id": "serial1", "chardev": "channel", "index": 1}),
        *("-chardev", f"file,id=journal,path={_escaped(files.journal)},append=on"),
        *_json("-device", {"driver": "isa-serial", "id": "serial2", "chardev": "journal", "index": 2}),
    ]


def _disks(profile: Profile, config: VmConfig) -> list[str]:
    arguments: list[str] = []
    targets: list[int] = []
    for disk in config.disks:
        targets.append(free_target(targets))
        arguments += _json("-blockdev", disk_backend(disk))
        arguments += _json("-device", disk_device(disk, profile, target=targets[-1]))
    return arguments


def _nics(profile: Profile, config: VmConfig, files: LaunchFiles) -> list[str]:
    arguments: list[str] = []
    for nic in config.nics:
        arguments += _json("-netdev", nic_backend(nic, str(files.taps[nic.id])))
        arguments += _json("-device", nic_device(nic, profile))
    return arguments


def _shares(config: VmConfig, files: LaunchFiles) -> list[str]:
    """virtiofsd reads and writes the guest's memory, so that memory must be shareable."""
    if not config.shares:
        return []
    memory = {"qom-type": "memory-backend-memfd", "id": "ram", "size": config.memory_mib << 20, "share": True}
    arguments = [*_json("-object", memory), "-machine", "memory-backend=ram"]
    for share in config.shares:
        arguments += ("-chardev", f"socket,id=share-{share.tag},fd={files.shares[share.tag]}")
        arguments += _json("-device", share_device(share.tag))
    return arguments


def _json(option: str, value: Mapping[str, Any]) -> Sequence[str]:
    return option, json.dumps(value)


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
