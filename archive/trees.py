"""Removing what is in the way, by descriptor: nothing outside the given directory is touched."""

from __future__ import annotations

import os
import stat

__all__ = ["list_names", "remove_tree"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def list_names(fd: int) -> list[bytes]:
    """Names in an open directory (O_PATH will do), sorted."""
    readable = os.open(".", _OPEN, dir_fd=fd)
    try:
        return sorted(os.fsencode(name) for name in os.listdir(readable))
    finally:
        os.close(readable)


def remove_tree(parent_fd: int, name: bytes) -> None:
    """``rm -rf`` of one entry. It must exist; what vanishes meanwhile is fine.

    Iterative: the depth of a stranger's tree is bounded by descriptors, not by our stack.
    """
    if not _unlink_or_enter(parent_fd, name):
        return
    levels: list[tuple[int, bytes, list[bytes]]] = []  # (fd, its name in the parent, names left)

    def enter(directory: int, child: bytes) -> None:
        fd = os.open(child, _OPEN, dir_fd=directory)
        levels.append((fd, child, [os.fsencode(entry) for entry in os.listdir(fd)]))

    try:
        enter(parent_fd, name)
        while levels:
            fd, own_name, names = levels[-1]
            if names:
                child = names.pop()
                if _unlink_or_enter(fd, child):
                    enter(fd, child)
                continue
            levels.pop()
            os.close(fd)
            os.rmdir(own_name, dir_fd=levels[-1][0] if levels else parent_fd)
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def _unlink_or_enter(fd: int, name: bytes) -> bool:
    """Remove a non-directory; True when ``name`` is a directory to go into."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            return True
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    return False
