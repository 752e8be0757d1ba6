"""Owner, mode, attributes and times of what was just created.

In this order: changing the owner clears setuid bits and capabilities, and
everything but the last step changes a time.
"""

from __future__ import annotations

import os
import stat

from archive.attributes import write_xattrs
from archive.errors import ArchiveError
from archive.members import SYMBOLIC_LINK, Member

__all__ = ["clamp", "device_number", "dress", "dress_by_name"]

_TIME_RANGE = (-(1 << 31) * 10**9, (1 << 34) * 10**9)  # what ext4 can hold; the rest is clamped


def dress(fd: int, member: Member, owner: tuple[int, int] | None) -> int:
    """For what is open; the number of attributes the file system has no place for."""
    uid, gid = owner or (member.uid, member.gid)
    os.fchown(fd, uid, gid)
    os.fchmod(fd, member.mode)
    skipped = write_xattrs(fd, member.xattrs, member.name) if member.xattrs else 0
    mtime = clamp(member.mtime_ns)
    os.utime(fd, ns=(mtime, mtime))
    return skipped


def dress_by_name(parent_fd: int, name: bytes, member: Member, owner: tuple[int, int] | None) -> int:
    """The same for what cannot be opened: links, devices, pipes."""
    uid, gid = owner or (member.uid, member.gid)
    os.chown(name, uid, gid, dir_fd=parent_fd, follow_symlinks=False)
    if member.kind != SYMBOLIC_LINK:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                raise ArchiveError(member.name, "replaced by somebody else while it was created")
            os.chmod(f"/proc/self/fd/{handle}", member.mode)
        finally:
            os.close(handle)
    skipped = 0
    if member.xattrs:
        place = f"/proc/self/fd/{parent_fd}/{os.fsdecode(name)}"
        skipped = write_xattrs(place, member.xattrs, member.name)
    mtime = clamp(member.mtime_ns)
    os.utime(name, ns=(mtime, mtime), dir_fd=parent_fd, follow_symlinks=False)
    return skipped


def device_number(member: Member) -> int:
    if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
        raise ArchiveError(member.name, "device number out of range")
    return os.makedev(member.major, member.minor)


def clamp(nanoseconds: int) -> int:
    return min(max(nanoseconds, _TIME_RANGE[0]), _TIME_RANGE[1])
