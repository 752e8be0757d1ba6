"""Find a virtual disk by what its hardware says, and mount it.

Identity comes from the serial number or the SCSI address that the hypervisor
set, never from the disk's content, which the workload may have written.
"""

from __future__ import annotations

import contextlib
import errno
import os

from tether import linux
from tether.tether_pb2 import DiskAddress
from tether.uevents import Uevents

__all__ = ["DiskError", "find_disk", "mount_disk"]

_SYS_BLOCK = "/sys/block"
_SCSI_HOSTS = "/sys/class/scsi_host"
_SERIAL_PAGE_HEADER = 4  # bytes before the serial number in VPD page 0x80 (SPC-4)
# Controllers that are no virtual disk's: CD-ROM drives sit on them.
_NOT_SCSI = ("ata_piix", "ahci", "pata_", "usb-storage")


class DiskError(Exception):
    """A disk is not there or cannot be mounted; the text names it."""


def find_disk(address: DiskAddress, uevents: Uevents, *, seconds: float = 10) -> str:
    """The device node of the disk, once it has one and its size is known.

    Raises:
        DiskError: it did not appear in time.
    """
    if not (address.serial or address.scsi):
        raise DiskError("a disk has no address in the boot configuration")

    def look() -> str | None:
        name = _by_serial(address.serial) if address.serial else _by_scsi(address.scsi)
        return (
            f"/dev/{name}" if name and _read(f"{_SYS_BLOCK}/{name}/size").strip() not in (b"", b"0") else None
        )

    found = uevents.wait_for(look, seconds=seconds)
    if found is None:
        present = ", ".join(_names()) or "none"
        wanted = f"serial {address.serial}" if address.serial else f"SCSI address {address.scsi}"
        raise DiskError(f"no disk with {wanted} within {seconds:g} s (present: {present})")
    return found


def mount_disk(device: str, target: str, uevents: Uevents, *, read_only: bool) -> None:
    """Mount the ext4 file system of ``device`` on the directory ``target``, made when missing.

    Raises:
        DiskError: with the kernel's reason.
    """
    os.makedirs(target, mode=0o700, exist_ok=True)
    flags = linux.MS_NOATIME | (linux.MS_RDONLY if read_only else 0)

    def attempt() -> OSError | bool | None:
        try:
            linux.mount(device, target, "ext4", flags)
        except OSError as error:
            # A hot-added disk has a node before it answers.
            return None if error.errno in (errno.ENXIO, errno.ENOENT) else error
        return True

    result = uevents.wait_for(attempt, seconds=5)
    if read_only and isinstance(result, OSError) and result.errno == errno.EROFS:
        # The last writer did not unmount, and a write-protected disk cannot replay its journal.
        linux.mount(device, target, "ext4", flags, "noload")
        return
    if result is None:
        raise DiskError(f"{device} does not answer")
    if isinstance(result, OSError):
        raise DiskError(str(result)) from result


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(_SYS_BLOCK) if not name.startswith("loop"))
    except FileNotFoundError:
        return []


def _by_serial(serial: str) -> str | None:
    wanted = serial.encode()
    for name in _names():
        if _read(f"{_SYS_BLOCK}/{name}/serial").strip() == wanted:
            return name
        page = _read(f"{_SYS_BLOCK}/{name}/device/vpd_pg80")
        if page[_SERIAL_PAGE_HEADER:].strip(b"\0 ") == wanted:
            return name
    return None


def _by_scsi(address: str) -> str | None:
    """``address`` counts controllers from 0; the kernel's numbers include those that are none of ours."""
    controller, _, rest = address.partition(":")
    hosts: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_SCSI_HOSTS):
            driver = _read(f"{_SCSI_HOSTS}/{name}/proc_name").decode(errors="replace").strip()
            if not driver.startswith(_NOT_SCSI):
                hosts.append(int(name.removeprefix("host")))
    hosts.sort()
    if not controller.isdigit() or int(controller) >= len(hosts):
        return None
    wanted = f"{hosts[int(controller)]}:{rest}"
    for name in _names():
        with contextlib.suppress(OSError):
            if os.readlink(f"{_SYS_BLOCK}/{name}/device").rsplit("/", 1)[-1] == wanted:
                return name
    return None


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # this disk has no such attribute
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)
