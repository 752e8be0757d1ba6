"""What can be copied of a VM: the rules that both back ends share.

A snapshot is the configuration, a copy of every disk the VM may write, and, of a
running VM, its memory. It appears under its name when it is complete. A copy, not
an overlay: disks belong to our caller, who must find them where they were.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from portlayer.hypervisor.base import Disk, HypervisorError, NotSupported, VmConfig
from portlayer.hypervisor.durable import NEW, sync_directory, write_file

__all__ = ["Draft", "Running", "check_clone", "check_name", "copy_disks"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DESCRIPTOR = b"# Disk DescriptorFile"


@dataclass(frozen=True, kw_only=True)
class Running:
    """The hardware a running VM has, which its configuration may be ahead of."""

    disks: Sequence[str]
    nics: int
    plugged: bool  # it came or went since the start


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise HypervisorError(f"snapshot name {name!r}: letters, digits, '_', '.' and '-' are possible")


class Draft:
    """A snapshot that is being made."""

    def __init__(self, snapshots: Path, name: str) -> None:
        """Raises HypervisorError: the name is taken or cannot be one."""
        check_name(name)
        self.final = snapshots / name
        self.path = snapshots / f"{NEW}{name}"
        if self.final.exists():
            raise HypervisorError(f"snapshot {name} exists")

    @property
    def memory(self) -> Path:
        return self.path / "memory.state"

    def begin(self) -> None:
        self.path.mkdir(mode=0o700, parents=True)

    def finish(self, document: bytes) -> None:
        """``document``: the configuration as its back end writes it."""
        write_file(self.path / "config.json", document)
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
        process = await asyncio.create_subprocess_exec(
            *("cp", "--reflink=auto", "--sparse=always", "--", str(disk.path), str(copy)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, words = await process.communicate()
        if process.returncode != 0:
            raise HypervisorError(f"disk {disk.id} not copied: {words.decode(errors='replace').strip()}")
        await asyncio.to_thread(_sync, copy)


def check_clone(source: VmConfig, clone: VmConfig, running: Running | None) -> None:
    """Whether ``clone`` can be made of ``source`` (which runs when ``running`` is given).

    A running clone goes on with the source's device state, so it must have the same
    devices in the same slots; and it must not write to what the source has open.
    """
    written = {disk.path for disk in source.disks if not disk.read_only}
    for disk in clone.disks:
        if not disk.read_only and disk.path in written:
            raise HypervisorError(
                f"disk {disk.id}: {disk.path} is written by the source; a clone needs its own child"
            )
    if running is None:
        return
    if written:
        raise NotSupported(
            "a running VM that writes to a disk cannot be cloned: its memory and the disk are one"
        )
    if running.plugged:
        raise NotSupported("the VM's hardware was changed since it started: its slots cannot be told")
    differences = {
        "memory": (source.memory_mib, clone.memory_mib),
        "virtual CPUs": (source.vcpus, clone.vcpus),
        "disks": ([disk.id for disk in source.disks], [disk.id for disk in clone.disks]),
        "running disks": (list(running.disks), [disk.id for disk in clone.disks]),
        "NICs": (running.nics, len(clone.nics)),
    }
    for what, (old, new) in differences.items():
        if old != new:
            raise HypervisorError(f"clone of a running VM: {what} must be the source's ({old}), not {new}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
