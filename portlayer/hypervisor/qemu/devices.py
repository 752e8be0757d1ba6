"""The virtual devices of a VM as QEMU's own objects, for the command line and for hot plug alike.

Everything here is a pure function. Each returns what QEMU takes as a JSON
``-device``, ``-blockdev`` or ``-netdev`` and, unchanged, as the arguments of
the QMP command of the same purpose: a hot-plugged device is the same device.

Invariants: a name or path that could end an option early never gets this far
(:func:`check_config`); image formats come from the file name, never from the
content, which is the guest's; the serial number is the disk's identity.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Any

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, VmConfig

__all__ = [
    "MAX_DISKS",
    "MAX_NICS",
    "MAX_SHARES",
    "Profile",
    "check_config",
    "check_disk",
    "check_nic",
    "disk_backend",
    "disk_device",
    "disk_device_id",
    "disk_node",
    "free_target",
    "nic_backend",
    "nic_backend_id",
    "nic_device",
    "nic_device_id",
    "share_device",
]


class Profile(enum.Enum):
    FAST = "fast"  # virtio on q35, direct kernel boot
    VSPHERE = "vsphere"  # what ESXi shows: pvscsi, vmxnet3, CD-ROM with the ISO


HOT_BRIDGE = "hot"  # a PCI bridge with 31 slots that ACPI hot plug serves; pcie.0 itself lets nothing go
SCSI_BUS = "scsi0.0"
SCSI_RESERVED = 7  # the controller's own target on ESXi
MAX_DISKS = {Profile.FAST: 22, Profile.VSPHERE: 15}
MAX_SHARES = 16
MAX_NICS = {Profile.FAST: 8, Profile.VSPHERE: 8}

_FORMATS = {".vmdk": "vmdk", ".qcow2": "qcow2", ".raw": "raw", ".img": "raw", ".iso": "raw"}
_VM_ID = re.compile(r"[0-9a-f]{64}")
_DISK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}")
_NIC_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,14}")
_TAG = re.compile(r"[a-z0-9-]{1,36}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def check_config(config: VmConfig, profile: Profile) -> None:
    """Refuse what could not be started, or could mean something else to QEMU than to us."""
    if not _VM_ID.fullmatch(config.id):
        raise HypervisorError(f"VM id {config.id!r}: expected 64 lower-case hex digits")
    if not 1 <= config.vcpus <= 255:
        raise HypervisorError(f"VM {config.id[:12]}: {config.vcpus} virtual CPUs; 1 to 255 are possible")
    if config.memory_mib < 32:
        raise HypervisorError(
            f"VM {config.id[:12]}: {config.memory_mib} MiB of memory; at least 32 are needed"
        )
    for disk in config.disks:
        check_disk(disk)
    for nic in config.nics:
        check_nic(nic)
    for share in config.shares:
        if not _TAG.fullmatch(share.tag) or not share.path.is_absolute():
            raise HypervisorError(f"share {share.tag!r} of {share.path}: a short tag and an absolute path")
    _check_unique(config.id, "share", (share.tag for share in config.shares))
    if len(config.shares) > MAX_SHARES:
        raise HypervisorError(
            f"VM {config.id[:12]}: {len(config.shares)} host paths; {MAX_SHARES} are possible"
        )
    _check_unique(config.id, "disk", (disk.id for disk in config.disks))
    _check_unique(config.id, "NIC", (nic.id for nic in config.nics))
    _check_unique(config.id, "MAC address", (nic.mac.lower() for nic in config.nics))
    if len(config.disks) > MAX_DISKS[profile]:
        raise HypervisorError(
            f"VM {config.id[:12]}: {len(config.disks)} disks; {MAX_DISKS[profile]} are possible"
        )
    if len(config.nics) > MAX_NICS[profile]:
        raise HypervisorError(
            f"VM {config.id[:12]}: {len(config.nics)} NICs; {MAX_NICS[profile]} are possible"
        )


def check_disk(disk: Disk) -> None:
    if not _DISK_ID.fullmatch(disk.id):
        raise HypervisorError(f"disk id {disk.id!r}: expected 1 to 20 letters, digits, '.', '_' or '-'")
    if not disk.path.is_absolute():
        raise HypervisorError(f"disk {disk.id}: path {disk.path} is not absolute")
    _format(disk)


def check_nic(nic: Nic) -> None:
    if not _NIC_ID.fullmatch(nic.id):
        raise HypervisorError(f"NIC id {nic.id!r}: not an interface name")
    if not _MAC.fullmatch(nic.mac):
        raise HypervisorError(f"NIC {nic.id}: {nic.mac!r} is not a MAC address")
    if not 68 <= nic.mtu <= 65535:
        raise HypervisorError(f"NIC {nic.id}: MTU {nic.mtu} is not between 68 and 65535")


def _check_unique(vm: str, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise HypervisorError(f"VM {vm[:12]}: {what} {name} is there twice")
        seen.add(name)


def _format(disk: Disk) -> str:
    try:
        return _FORMATS[disk.path.suffix]
    except KeyError as error:
        known = ", ".join(sorted(_FORMATS))
        raise HypervisorError(f"disk {disk.id}: {disk.path} is none of {known}") from error


# -- disks


def disk_node(disk_id: str) -> str:
    return f"node-{disk_id}"


def disk_device_id(disk_id: str) -> str:
    return f"disk-{disk_id}"


def disk_backend(disk: Disk) -> dict[str, Any]:
    """The ``blockdev``. Image locks are on: a disk that another VM writes makes the start fail, not the data.

    Host page cache, guest flushes honoured: what the guest has written survives
    the death of QEMU, what it has flushed survives the death of the host.
    """
    return {
        "node-name": disk_node(disk.id),
        "driver": _format(disk),
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": False},
        "file": {
            "driver": "file",
            "node-name": f"file-{disk.id}",
            "filename": str(disk.path),
            "locking": "on",
            "read-only": disk.read_only,
        },
    }


def disk_device(disk: Disk, profile: Profile, *, target: int) -> dict[str, Any]:
    """The device in front of the backend; ``target`` counts only on SCSI.

    Errors are reported to the guest: QEMU's default would pause the VM when the
    host's disk is full, and nobody would know why it hangs.
    """
    errors = {"rerror": "report", "werror": "report"}
    if profile is Profile.VSPHERE:
        return {
            "driver": "scsi-hd",
            "id": disk_device_id(disk.id),
            "bus": SCSI_BUS,
            "scsi-id": target,
            "lun": 0,
            "drive": disk_node(disk.id),
            "serial": disk.id,
            "device_id": disk.id,
            "vendor": "VMware",
            "product": "Virtual disk",
            **errors,
        }
    return {
        "driver": "virtio-blk-pci",
        "id": disk_device_id(disk.id),
        "bus": HOT_BRIDGE,
        "drive": disk_node(disk.id),
        "serial": disk.id,
        **errors,
    }


def free_target(taken: Iterable[int]) -> int:
    """The lowest SCSI target that is nobody's."""
    used = {SCSI_RESERVED, *taken}
    return next(number for number in range(len(used) + 1) if number not in used)


# -- shares


def share_device(tag: str) -> dict[str, Any]:
    return {
        "driver": "vhost-user-fs-pci",
        "id": f"share-{tag}",
        "bus": "pcie.0",
        "chardev": f"share-{tag}",
        "tag": tag,
    }


# -- NICs


def nic_backend_id(nic_id: str) -> str:
    return f"net-{nic_id}"


def nic_device_id(nic_id: str) -> str:
    return f"nic-{nic_id}"


def nic_backend(nic: Nic, fd: str) -> dict[str, Any]:
    """The ``netdev``. ``fd``: number (command line) or name (QMP getfd) of the open tap."""
    return {"type": "tap", "id": nic_backend_id(nic.id), "fd": fd}


def nic_device(nic: Nic, profile: Profile) -> dict[str, Any]:
    device: dict[str, Any] = {
        "driver": "virtio-net-pci",
        "id": nic_device_id(nic.id),
        "bus": HOT_BRIDGE,
        "netdev": nic_backend_id(nic.id),
        "mac": nic.mac,
        "romfile": "",  # no network boot: the option ROM costs start-up time
    }
    if profile is Profile.VSPHERE:
        return {**device, "driver": "vmxnet3"}
    if nic.mtu != 1500:
        device["host_mtu"] = nic.mtu
    return device
