"""What one tree changed relative to the tree it started from, and the tar of it.

Both trees are file systems of one disk chain: an inode that nobody touched has
the same number and the same change time in both, so most of the work is
``lstat``. Where the change time differs and the rest of the metadata does not,
content and attributes decide.
"""

from __future__ import annotations

import os
import stat

from archive.attributes import read_xattrs
from archive.errors import ArchiveError
from archive.members import Member, encode_header
from archive.packing import END_OF_ARCHIVE, Packer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Known = dict[tuple[int, int], bool]  # (inode below, inode above): whether the content differs

__all__ = ["ADDED", "DELETED", "MODIFIED", "compare", "pack_changes"]

MODIFIED, ADDED, DELETED = b"C", b"A", b"D"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_DEPTH = 400
_PIECE = 1 << 20


def compare(lower_fd: int, upper_fd: int) -> Iterator[tuple[bytes, bytes]]:
    """(kind, path) of every difference, parents before children, as ``docker diff`` shows them.

    Directories above a change are MODIFIED. The root itself is not mentioned.
    """
    lower = os.open(".", _OPEN_DIRECTORY, dir_fd=lower_fd)
    try:
        upper = os.open(".", _OPEN_DIRECTORY, dir_fd=upper_fd)
        try:
            yield from _compare(lower, upper, b"", 0, known={})
        finally:
            os.close(upper)
    finally:
        os.close(lower)


def _compare(
    lower: int, upper: int, prefix: bytes, depth: int, *, known: Known
) -> Iterator[tuple[bytes, bytes]]:
    if depth > _MAX_DEPTH:
        raise ArchiveError(prefix, f"deeper than {_MAX_DEPTH} directories")
    old = set(os.listdir(lower)) if lower >= 0 else set()
    new = set(os.listdir(upper))
    for text in sorted(old | new):
        name = os.fsencode(text)
        path = prefix + b"/" + name
        if text not in new:
            yield DELETED, path
            continue
        after = os.stat(name, dir_fd=upper, follow_symlinks=False)
        before = os.stat(name, dir_fd=lower, follow_symlinks=False) if text in old else None
        is_directory = stat.S_ISDIR(after.st_mode)
        was_directory = before is not None and stat.S_ISDIR(before.st_mode)
        if before is None:
            yield ADDED, path
        changed = before is not None and _differs(lower, upper, name, before, after, known=known)
        if changed:
            yield MODIFIED, path
        if is_directory:
            inner = _compare_directories(
                lower if was_directory else -1, upper, name, path, depth, known=known
            )
            first = next(inner, None)
            if first is not None:
                if before is not None and not changed:
                    yield MODIFIED, path
                yield first
                yield from inner


def _compare_directories(
    lower: int, upper: int, name: bytes, path: bytes, depth: int, *, known: Known
) -> Iterator[tuple[bytes, bytes]]:
    new = os.open(name, _OPEN_DIRECTORY, dir_fd=upper)
    try:
        old = os.open(name, _OPEN_DIRECTORY, dir_fd=lower) if lower >= 0 else -1
        try:
            yield from _compare(old, new, path, depth + 1, known=known)
        finally:
            if old >= 0:
                os.close(old)
    finally:
        os.close(new)


def _differs(
    lower: int,
    upper: int,
    name: bytes,
    before: os.stat_result,
    after: os.stat_result,
    *,
    known: Known,
) -> bool:
    if (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns):
        return False
    for field in ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns"):
        if getattr(before, field) != getattr(after, field):
            return True
    kind = stat.S_IFMT(after.st_mode)
    if kind == stat.S_IFREG:
        if before.st_size != after.st_size:
            return True
        # removing one of many hard links changes the times of all: their content is read once
        pair = (before.st_ino, after.st_ino)
        if pair not in known:
            known[pair] = _content_differs(lower, upper, name)
        return known[pair]
    if kind == stat.S_IFLNK:
        return os.readlink(name, dir_fd=lower) != os.readlink(name, dir_fd=upper)
    if kind == stat.S_IFDIR:
        places = [f"/proc/self/fd/{fd}/{os.fsdecode(name)}" for fd in (lower, upper)]
        return read_xattrs(places[0]) != read_xattrs(places[1])
    return False


def _roots_differ(lower: int, upper: int) -> bool:
    """Times aside: every start of a container touches the root, and no image needs to remember it."""
    before, after = os.fstat(lower), os.fstat(upper)
    if any(getattr(before, field) != getattr(after, field) for field in ("st_mode", "st_uid", "st_gid")):
        return True
    return read_xattrs(f"/proc/self/fd/{lower}/.") != read_xattrs(f"/proc/self/fd/{upper}/.")


def _content_differs(lower: int, upper: int, name: bytes) -> bool:
    old = os.open(name, _OPEN_FILE, dir_fd=lower)
    try:
        new = os.open(name, _OPEN_FILE, dir_fd=upper)
        try:
            if read_xattrs(old) != read_xattrs(new):
                return True
            while True:
                one, two = os.read(old, _PIECE), os.read(new, _PIECE)
                if one != two:
                    return True
                if not one:
                    return False
        finally:
            os.close(new)
    finally:
        os.close(old)


def pack_changes(lower_fd: int, upper_fd: int, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The differences as a layer: changed entries with their content, whiteouts for deleted ones.

    ``entries`` are what :func:`compare` yields, or those of them that are to be in the layer.
    """
    packer = Packer()
    buffer = bytearray()
    if _roots_differ(lower_fd, upper_fd):
        root = yield from packer.entry(upper_fd, b".", b".", buffer)
        if root is not None:
            os.close(root)
    for kind, path in entries:
        parent, _, name = path.rpartition(b"/")
        if kind == DELETED:
            buffer += encode_header(Member(name=path[1 : len(path) - len(name)] + b".wh." + name, mode=0))
        else:
            directory = _open_parent(upper_fd, parent)
            try:
                entered = yield from packer.entry(directory, name, path[1:], buffer)
                if entered is not None:
                    os.close(entered)  # its children are changes of their own
            finally:
                os.close(directory)
        if len(buffer) >= 1 << 18:
            yield bytes(buffer)
            buffer.clear()
    buffer += END_OF_ARCHIVE
    yield bytes(buffer)


def _open_parent(root_fd: int, path: bytes) -> int:
    """Open a directory by names that are no links; PATH_MAX does not apply."""
    fd = os.open(".", _OPEN_DIRECTORY, dir_fd=root_fd)
    for name in filter(None, path.split(b"/")):
        try:
            step = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = step
    return fd
