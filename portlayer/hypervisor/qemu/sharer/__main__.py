"""Shows one host path to virtiofsd and becomes it: run as a script.

In a mount namespace of its own the path alone is bound below an empty directory
(a file as the one file of a directory, since virtiofsd shares directories),
read-only with all that is mounted below it when that is wanted: what the guest's
kernel says about writing does not count. virtiofsd then makes that directory its
root, gives up what privileges it does not need and filters its system calls.

The path comes resolved: a link in it now was made since, and fails.
Standard library only, no import of ours: it starts in 20 ms.
"""

import ctypes
import os
import stat
import sys

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE, _MS_REMOUNT, _MS_RDONLY = 16384 | 1 << 18, 32, 1
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_RDONLY = 1, 4, 1
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_RESOLVE_NO_SYMLINKS, _RESOLVE_NO_MAGICLINKS = 4, 2

FILE = "file"  # what a shared file is called in its directory
_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _open(path: str) -> int:
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    number = _libc.syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    return _call(f"open {path}", number)


def show(path: str, place: str, *, read_only: bool) -> None:
    """Bind ``path`` at or, if it is a file, in the directory ``place``."""
    _call("unshare", _libc.unshare(_CLONE_NEWNS))
    _call("mount private", _libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None))
    source = _open(path)
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_RECURSIVE | os.O_CLOEXEC
    tree = _call("open_tree", _libc.syscall(_SYS_OPEN_TREE, source, b"", flags))
    if read_only:
        attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        where = _AT_EMPTY_PATH | _AT_RECURSIVE
        changed = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", where, ctypes.byref(attributes), size)
        _call("mount_setattr", changed)
    if not stat.S_ISDIR(os.fstat(source).st_mode):
        _mount(place, "tmpfs", 0, "mode=755,size=64k")
        file = f"{place}/{FILE}"
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
        _move(tree, file)
        _mount(place, "tmpfs", _MS_REMOUNT | _MS_RDONLY, "mode=755,size=64k")  # nothing beside the file
    else:
        _move(tree, place)


def _mount(place: str, kind: str, flags: int, options: str) -> None:
    number = ctypes.c_ulong(flags)
    _call(kind, _libc.mount(b"mooring", os.fsencode(place), kind.encode(), number, options.encode()))


def _move(tree: int, place: str) -> None:
    where = os.fsencode(place)
    moved = _libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, where, _MOVE_MOUNT_F_EMPTY_PATH)
    _call(f"move_mount {place}", moved)


def main() -> None:
    path, place, mode, *command = sys.argv[1:]
    show(path, place, read_only=mode == "ro")
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
