"""Disks mounted in a namespace of our own, and taken down in the order that loses nothing.

Modes:

    BUILD   read-write, no journal, no flushes: a disk that nobody has yet. A crash throws it away.
    WRITE   read-write, with the journal: somebody's data.
    READ    never changes the disk. A file system that was not unmounted cleanly
            gets its journal replayed into a throw-away child in memory, which
            is mounted instead; so does one that ``scratch`` was asked for.

All of them ``nosuid,nodev,noexec``.
"""

from __future__ import annotations

import errno
import os

import archive.paths
from portlayer.offline import kernel, loops, vmdk
from portlayer.offline.export import Daemon
from portlayer.offline.flusher import Flusher
from portlayer.offline.superblock import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock

__all__ = ["BUILD", "READ", "WRITE", "Disk", "Session", "UncleanError"]

BUILD = "build"
WRITE = "write"
READ = "read"
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME
_OPTIONS = {BUILD: "noload,nobarrier", WRITE: "", READ: "noload"}
_SCRATCH_SIZE = "512m"
_OPEN_DATA = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UncleanError(Exception):
    """The disk could not be unmounted cleanly: writes were lost."""


class Disk:
    """One disk of a session, exported and perhaps mounted."""

    __slots__ = ("directory", "export", "fd", "flusher", "had_errors", "loop", "mode", "mountpoint", "path")

    def __init__(self, path: str, mode: str, export: str, mountpoint: str) -> None:
        self.path = path
        self.mode = mode
        self.export = export
        self.mountpoint = mountpoint
        self.fd = -1  # the mounted root, O_PATH
        self.directory = -1  # the same, open since the mount: syncfs on it reports every write error since
        self.flusher: Flusher | None = None
        self.loop = -1
        self.had_errors = False


class Session:
    """Everything one child has open. ``work`` is an existing directory that the tmpfs goes over."""

    def __init__(self, work: str) -> None:
        kernel.private_mounts()
        kernel.mount(
            "mooring", work, "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, f"size={_SCRATCH_SIZE},mode=0700"
        )
        self._work = work
        # The daemon must not hold the mounts that stand on it: when both of us are killed, the last one out
        # of a mount namespace unmounts what is left there, and the daemon would wait for ever for itself.
        kernel.share_mounts(work)
        self._daemon = Daemon(work)
        kernel.follow_mounts(work)
        self._disks: dict[str, Disk] = {}
        self._binds: list[str] = []

    # -- up

    def mount(self, name: str, path: str, mode: str, *, scratch: bool = False) -> int:
        """Mount a disk; the descriptor of its root stays the session's."""
        disk = self.export(name, path, mode)
        block = self._superblock(disk)
        disk.had_errors = block.errors
        if mode == READ and (scratch or block.needs_recovery):
            self._daemon.remove(name)
            child = f"{self._work}/{name}.vmdk"
            vmdk.create(child, parent=path)
            self._daemon.add(name, child, disk.export, writable=True, flush=False)
            return self.attach(disk, scratch=True)
        return self.attach(disk)

    def attach(self, disk: Disk, *, scratch: bool = False) -> int:
        """Mount an exported disk."""
        read_only = disk.mode == READ and not scratch
        options = _OPTIONS[WRITE if scratch else disk.mode]
        disk.loop, device, node = loops.attach(disk.export, read_only=read_only, nodes=self._work)
        try:
            os.mkdir(disk.mountpoint)
            kernel.mount(
                node, disk.mountpoint, "ext4", _FLAGS | (kernel.MS_RDONLY if read_only else 0), options
            )
        finally:
            os.close(device)
        disk.fd = os.open(disk.mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        disk.directory = os.open(disk.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return disk.fd

    def export(self, name: str, path: str, mode: str) -> Disk:
        """Show a disk as a file, not mounted (``format`` writes into it)."""
        disk = Disk(path, mode, f"{self._work}/{name}.disk", f"{self._work}/{name}")
        os.close(os.open(disk.export, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        self._daemon.add(name, path, disk.export, writable=mode != READ, flush=mode == WRITE)
        self._disks[name] = disk
        return disk

    def bind(self, source: str, destination: bytes, *, read_only: bool) -> None:
        """Show the directory ``data`` of disk ``source`` at ``destination`` in disk "root".

        Both are looked up without following what a guest may have left there.
        """
        root = self.root("root")
        directory = archive.paths.open_directory(
            root, archive.paths.clean(destination), create=self._is_writable(root)
        )
        try:
            data = os.open("data", _OPEN_DATA, dir_fd=self.root(source))
            try:
                place = os.readlink(f"/proc/self/fd/{directory.fd}")
                kernel.bind(f"/proc/self/fd/{data}", place, read_only=read_only)
                self._binds.append(place)
            finally:
                os.close(data)
        finally:
            directory.close()

    def wrote(self, name: str, count: int) -> None:
        """So many more bytes went into a disk: time to write some back?"""
        disk = self._disks[name]
        if disk.mode == BUILD:
            if disk.flusher is None:
                disk.flusher = Flusher(disk.directory, disk.path)
            disk.flusher.wrote(count)

    def root(self, name: str) -> int:
        return self._disks[name].fd

    # -- down

    def close(self) -> None:
        """Take everything down and make the disks durable.

        Raises:
            OSError, UncleanError, DaemonError: a disk opened for writing may lack something.
        """
        written = [disk for disk in self._disks.values() if disk.mode != READ]
        for disk in written:
            if disk.fd >= 0:
                self._stop_flusher(disk)
                kernel.sync_file_system(disk.directory)
        self._unmount_all()
        for disk in written:
            block = self._superblock(disk)
            if block.needs_recovery or not block.clean or (block.errors and not disk.had_errors):
                raise UncleanError(f"{disk.path} was not unmounted cleanly")
        self._daemon.quit()
        for disk in written:
            fd = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def abandon(self) -> None:
        """Take everything down; what was written does not matter any more."""
        try:
            self._unmount_all()
        finally:
            self._daemon.kill()

    def _unmount_all(self) -> None:
        while self._binds:
            kernel.unmount(self._binds.pop())
        for disk in reversed(self._disks.values()):
            if disk.fd >= 0:
                self._stop_flusher(disk)
                os.close(disk.fd)
                os.close(disk.directory)
                disk.fd = disk.directory = -1
                kernel.unmount(disk.mountpoint)
            if disk.loop >= 0:
                loops.wait_until_free(disk.loop)
                disk.loop = -1

    def _is_writable(self, root: int) -> bool:
        return not os.fstatvfs(root).f_flag & os.ST_RDONLY

    def _stop_flusher(self, disk: Disk) -> None:
        if disk.flusher is not None:
            disk.flusher.stop()
            disk.flusher = None

    def _superblock(self, disk: Disk) -> Superblock:
        fd = os.open(disk.export, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET)
        finally:
            os.close(fd)
        if len(data) != SUPERBLOCK_SIZE:
            raise OSError(errno.EIO, f"{disk.path}: short read")
        return Superblock(data)
