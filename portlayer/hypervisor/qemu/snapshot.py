"""Point-in-time copies: ``vms/<id>/snapshots/<name>/``.

A snapshot is the configuration, a copy of every disk the VM may write, and, of a
running VM, its memory. It appears under its name when it is complete. A copy, not
an overlay: disks belong to our caller, who must find them where they were.

Going back to one copies the disks again, so that it can be done more than once.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from portlayer.hypervisor.base import Disk, HypervisorError, NotSupported, VmConfig
from portlayer.hypervisor.qemu.durable import NEW, sync_directory, write_file
from portlayer.hypervisor.qemu.runtime import Launched
from portlayer.hypervisor.qemu.store import Record, decode, encode

__all__ = ["Draft", "Snapshot", "check_clone", "check_plain", "copy_disks", "names"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DESCRIPTOR = b"# Disk DescriptorFile"
_CONFIG, _MEMORY = "config.json", "memory.state"


class Snapshot:
    """A snapshot that is there."""

    def __init__(self, snapshots: Path, name: str) -> None:
        """Raises HypervisorError: there is none of this name."""
        self.path = snapshots / name
        if not _NAME.fullmatch(name) or not self.path.is_dir():
            raise HypervisorError(f"there is no snapshot {name!r}")

    @property
    def memory(self) -> Path:
        return self.path / _MEMORY

    def check(self, now: VmConfig) -> None:
        """A VM goes on only with the hardware that it had.

        Raises:
            NotSupported: names what has changed, or that the VM did not run.
        """
        if not self.memory.exists():
            raise NotSupported(f"snapshot {self.path.name} is of a VM that was off: it holds no memory")
        then = decode((self.path / _CONFIG).read_bytes()).config
        differences = {
            "memory": (then.memory_mib, now.memory_mib),
            "virtual CPUs": (then.vcpus, now.vcpus),
            "disks": ([disk.id for disk in then.disks], [disk.id for disk in now.disks]),
            "NICs": ([nic.mac for nic in then.nics], [nic.mac for nic in now.nics]),
        }
        for what, (old, new) in differences.items():
            if old != new:
                raise NotSupported(
                    f"snapshot {self.path.name} cannot go on: its VM had {what} {old}, now it has {new}"
                )

    def revert_disks(self, disks: Sequence[Disk]) -> None:
        """Each disk is wholly the old one or wholly the snapshot's, whenever we die."""
        for disk in disks:
            copy = self.path / f"{disk.id}{disk.path.suffix}"
            if disk.read_only:
                continue
            draft = disk.path.with_name(f"{NEW}{disk.path.name}")
            _copy(copy, draft)
            owner = disk.path.stat()
            os.chown(draft, owner.st_uid, owner.st_gid)
            draft.chmod(owner.st_mode & 0o777)
            draft.rename(disk.path)
            sync_directory(disk.path.parent)

    def delete(self) -> None:
        doomed = self.path.with_name(f"{NEW}{self.path.name}")
        self.path.rename(doomed)  # a start-up sweeps what is left of it
        shutil.rmtree(doomed)


def names(snapshots: Path) -> list[str]:
    if not snapshots.is_dir():
        return []
    return sorted(path.name for path in snapshots.iterdir() if not path.name.startswith(NEW))


class Draft:
    """A snapshot that is being made."""

    def __init__(self, snapshots: Path, name: str) -> None:
        """Raises HypervisorError: the name is taken or cannot be one."""
        if not _NAME.fullmatch(name):
            raise HypervisorError(f"snapshot name {name!r}: letters, digits, '_', '.' and '-' are possible")
        self.final = snapshots / name
        self.path = snapshots / f"{NEW}{name}"
        if self.final.exists():
            raise HypervisorError(f"snapshot {name} exists")

    @property
    def memory(self) -> Path:
        return self.path / _MEMORY

    def begin(self) -> None:
        self.path.mkdir(mode=0o700, parents=True)

    def finish(self, record: Record) -> None:
        write_file(self.path / _CONFIG, encode(record))
        self.path.rename(self.final)
        sync_directory(self.final.parent)


async def copy_disks(disks: Sequence[Disk], target: Path) -> None:
    """Copy what can be written; read-only disks are shared and never change."""
    for disk in disks:
        if disk.read_only:
            continue
        with disk.path.open("rb") as file:
            if file.read(len(_DESCRIPTOR)) == _DESCRIPTOR:
                raise NotSupported(f"disk {disk.id}: {disk.path} keeps its data in other files")
        copy = target / f"{disk.id}{disk.path.suffix}"
        await asyncio.to_thread(_copy, disk.path, copy)


def check_plain(launched: Launched) -> None:
    """Raise NotSupported when the running VM has devices in slots that a new start would not give them."""
    if launched.plugged:
        raise NotSupported("the VM's hardware was changed since it started: its slots cannot be told")


def check_clone(source: VmConfig, clone: VmConfig, launched: Launched | None) -> None:
    """Whether ``clone`` can be made of ``source`` (running when ``launched`` is given).

    A running clone goes on with the source's device state, so it must have the same
    devices in the same slots; and it must not write to what the source has open.
    """
    written = {disk.path for disk in source.disks if not disk.read_only}
    for disk in clone.disks:
        if not disk.read_only and disk.path in written:
            raise HypervisorError(
                f"disk {disk.id}: {disk.path} is written by the source; a clone needs its own child"
            )
    if launched is None:
        return
    if written:
        raise NotSupported(
            "a running VM that writes to a disk cannot be cloned: its memory and the disk are one"
        )
    check_plain(launched)
    differences = {
        "memory": (source.memory_mib, clone.memory_mib),
        "virtual CPUs": (source.vcpus, clone.vcpus),
        "disks": ([disk.id for disk in source.disks], [disk.id for disk in clone.disks]),
        "running disks": (list(launched.disks), [disk.id for disk in clone.disks]),
        "NICs": (len(launched.nics), len(clone.nics)),
    }
    for what, (old, new) in differences.items():
        if old != new:
            raise HypervisorError(f"clone of a running VM: {what} must be the source's ({old}), not {new}")


def _copy(source: Path, target: Path) -> None:
    copied = subprocess.run(
        ["cp", "--reflink=auto", "--sparse=always", "--", source, target],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if copied.returncode != 0:
        words = copied.stderr.decode(errors="replace").strip()
        raise HypervisorError(f"disk {source} not copied: {words}")
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
