"""The system calls Python has no name for. Constants are from the kernel's uapi headers."""

from __future__ import annotations

import ctypes
import os

__all__ = [
    "MS_NOATIME",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "bind",
    "die_with_parent",
    "follow_mounts",
    "mount",
    "private_mounts",
    "share_mounts",
    "start_write_back",
    "sync_file_system",
    "unmount",
]

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 1024
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MS_SLAVE = 1 << 19
_MS_SHARED = 1 << 20
_CLONE_NEWNS = 0x00020000
_UMOUNT_NOFOLLOW = 8
_PR_SET_PDEATHSIG = 1
_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def private_mounts() -> None:
    """From here on, nobody sees our mounts and (as long as we hold them) nobody else keeps them busy."""
    _call("unshare", _libc.unshare(_CLONE_NEWNS))
    _call("mount private", _libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))


def share_mounts(target: str) -> None:
    """Mounts made below ``target`` from now on reach those who :func:`follow_mounts` it."""
    _call(f"share {target}", _libc.mount(None, os.fsencode(target), None, ctypes.c_ulong(_MS_SHARED), None))


def follow_mounts(target: str) -> None:
    """Leave the processes that share our mounts, but keep seeing what they mount below ``target``."""
    _call("unshare", _libc.unshare(_CLONE_NEWNS))
    _call(f"follow {target}", _libc.mount(None, os.fsencode(target), None, ctypes.c_ulong(_MS_SLAVE), None))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _call(f"mount {source} on {target}", result)


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Show directory ``source`` at ``target``, a path free of links."""
    where = os.fsencode(target)
    _call(f"bind {source}", _libc.mount(os.fsencode(source), where, None, ctypes.c_ulong(_MS_BIND), None))
    if read_only:
        flags = _MS_BIND | _MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
        _call(f"bind {source} read-only", _libc.mount(None, where, None, ctypes.c_ulong(flags), None))


def unmount(target: str) -> None:
    _call(f"unmount {target}", _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW))


def sync_file_system(fd: int) -> None:
    """Write everything of the file system behind ``fd``; reports write errors nobody has seen yet."""
    _call("syncfs", _libc.syncfs(fd))


def start_write_back(fd: int) -> None:
    """Begin writing a file's dirty pages to the medium; does not wait for them."""
    everything = (ctypes.c_int64(0), ctypes.c_int64(0))
    _call("sync_file_range", _libc.sync_file_range(fd, *everything, _SYNC_FILE_RANGE_WRITE))


def die_with_parent(signal: int, parent: int) -> None:
    """Called in a new child of ``parent``: get ``signal`` when it ends, or end now if it already did."""
    _call("prctl", _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))
    if os.getppid() != parent:
        os._exit(127)
