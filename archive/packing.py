"""A tree below one path as a tar stream.

Hard links, extended attributes, holes (as PAX 1.0 sparse files), devices and
names of any bytes survive. Everything is opened by descriptor with
``O_NOFOLLOW`` and looked at again after opening, so that a file swapped for a
link or a pipe between look and open is noticed. Names vanish under our feet
in a living tree: such entries are left out. Entries come sorted: the same
tree gives the same bytes.
"""

from __future__ import annotations

import errno
import os
import stat

from archive.attributes import read_xattrs
from archive.errors import ArchiveError
from archive.limits import Limits
from archive.members import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    SYMBOLIC_LINK,
    Member,
    encode_header,
    padding,
)
from archive.paths import base_name, open_directory, split
from archive.sparse import encode_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

__all__ = ["END_OF_ARCHIVE", "Packer", "pack"]

END_OF_ARCHIVE = bytes(2 * BLOCK)
_CHUNK = 1 << 18  # headers and small files are gathered up to this size
_BIG_CHUNK = 1 << 20  # big files are read in pieces of this size
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_VANISHED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO))


def pack(
    root_fd: int, path: bytes, *, name: bytes | None = None, empty_devices: Collection[int] = ()
) -> Iterator[bytes]:
    """A tar of ``path`` and everything below it, in chunks of at most 1 MiB.

    The path is resolved at the call (so errors about it are raised here, not
    by the iterator); its last component is followed only when it ends in ``/``
    or ``/.``. ``name`` is the name of the top entry; by default the one
    ``docker cp`` expects: the base name, ``/`` for the root, ``.`` for ``dir/.``.
    Directories on a device in ``empty_devices`` (``st_dev`` of /proc, /sys, ...)
    are packed without their content. Sockets are left out. Close the iterator
    (``.close()``) when you stop early: it holds descriptors.

    Raises:
        OSError: FileNotFoundError, NotADirectoryError, ELOOP, ...
        ArchiveError: from the iterator: a file shrank while it was read.
    """
    top = base_name(path) if name is None else name
    parents, last = split(path)
    directory = open_directory(root_fd, parents)
    try:
        status = os.stat(last or ".", dir_fd=directory.fd, follow_symlinks=False)
    except BaseException:
        directory.close()
        raise
    if stat.S_ISSOCK(status.st_mode):
        directory.close()
        raise ArchiveError(top, "sockets cannot be archived")
    packer = Packer(empty_devices=empty_devices)
    return packer.tree(directory.fd, last or b".", top)


class Packer:
    """Writes entries one after the other; remembers hard links between them."""

    def __init__(self, *, empty_devices: Collection[int] = (), limits: Limits | None = None) -> None:
        self._empty_devices = frozenset(empty_devices)
        self._limits = limits or Limits()
        self._links: dict[tuple[int, int], bytes] = {}  # (device, inode) -> name in the archive

    def tree(self, parent_fd: int, name: bytes, archive_name: bytes) -> Iterator[bytes]:
        """A whole archive of one entry and what is below it. Owns ``parent_fd``."""
        buffer = bytearray()
        levels: list[tuple[int, bytes, list[bytes]]] = [(parent_fd, b"", [name])]
        try:
            while levels:
                fd, prefix, names = levels[-1]
                if not names:
                    os.close(levels.pop()[0])
                    continue
                child = names.pop()
                child_name = prefix + child if prefix else archive_name
                directory = yield from self.entry(fd, child, child_name, buffer)
                if directory is not None:
                    if len(levels) > self._limits.depth:
                        os.close(directory)
                        raise ArchiveError(child_name, f"deeper than {self._limits.depth} directories")
                    levels.append((directory, _slash(child_name), self._children(directory)))
                if len(buffer) >= _CHUNK:
                    yield bytes(buffer)
                    buffer.clear()
        finally:
            for fd, _, _ in levels:
                os.close(fd)
        buffer += END_OF_ARCHIVE
        yield bytes(buffer)

    def entry(
        self, fd: int, name: bytes, archive_name: bytes, buffer: bytearray
    ) -> Generator[bytes, None, int | None]:
        """Append one entry to ``buffer``, yielding when it is a big file.

        A generator that returns the descriptor of a directory, for the caller to go on and to close.
        """
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                yield from self._file(fd, name, archive_name, status, buffer)
                return None
            if kind == stat.S_IFDIR:
                return self._directory(fd, name, archive_name, buffer)
            if kind == stat.S_IFSOCK:
                return None
            member = _member(status, archive_name)
            if self._is_known_link(member, status):
                buffer += encode_header(member)
                return None
            if kind == stat.S_IFLNK:
                member.kind = SYMBOLIC_LINK
                member.link = os.readlink(name, dir_fd=fd)
            elif kind == stat.S_IFIFO:
                member.kind = FIFO
            else:
                member.kind = CHAR_DEVICE if kind == stat.S_IFCHR else BLOCK_DEVICE
                member.major = os.major(status.st_rdev)
                member.minor = os.minor(status.st_rdev)
            member.xattrs = _xattrs_of_special(fd, name)
            buffer += encode_header(member)
        except OSError as error:
            if error.errno not in _VANISHED:
                raise
        return None

    def _directory(self, fd: int, name: bytes, archive_name: bytes, buffer: bytearray) -> int:
        directory = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
        try:
            member = _member(os.fstat(directory), _slash(archive_name))
            member.kind = DIRECTORY
            member.xattrs = read_xattrs(directory)
            buffer += encode_header(member)
        except BaseException:
            os.close(directory)
            raise
        return directory

    def _children(self, fd: int) -> list[bytes]:
        if self._empty_devices and os.fstat(fd).st_dev in self._empty_devices:
            return []
        return sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)  # popped from the end

    def _file(
        self, fd: int, name: bytes, archive_name: bytes, seen: os.stat_result, buffer: bytearray
    ) -> Iterator[bytes]:
        file = os.open(name, _OPEN_FILE, dir_fd=fd)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return  # swapped since we looked
            member = _member(status, archive_name)
            if self._is_known_link(member, status):
                buffer += encode_header(member)
                return
            member.xattrs = read_xattrs(file)
            member.size = size = status.st_size
            segments = [(0, size)] if size else []
            if status.st_blocks * 512 < size:
                segments = _segments(file, size)
            if segments == [(0, size)] or not size:
                buffer += encode_header(member)
            else:
                _append_sparse_header(member, segments, buffer)
            for offset, length in segments:
                yield from _data(file, offset, length, archive_name, buffer)
            buffer += bytes(padding(sum(length for _, length in segments)))
        finally:
            os.close(file)

    def _is_known_link(self, member: Member, status: os.stat_result) -> bool:
        """Turn the second name of an inode into a hard link to the first."""
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        first = self._links.setdefault(key, member.name)
        if first == member.name:
            return False
        member.kind = HARD_LINK
        member.link = first
        return True


def _xattrs_of_special(fd: int, name: bytes) -> dict[bytes, bytes]:
    """Attributes of what cannot be opened: a link, a device, a pipe.

    Inside a container's view /proc belongs to another PID namespace and does not know us.
    Then there are none: such a file cannot hold ``user.`` attributes anyway.
    """
    if not os.path.exists("/proc/self/fd"):
        return {}
    return read_xattrs(f"/proc/self/fd/{fd}/{os.fsdecode(name)}")


def _member(status: os.stat_result, name: bytes) -> Member:
    return Member(
        name=name,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
    )


def _slash(name: bytes) -> bytes:
    return name if name.endswith(b"/") else name + b"/"


def _segments(file: int, size: int) -> list[tuple[int, int]]:
    """The pieces of a file that are not holes."""
    segments = []
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole up to the end
                raise
            break
        stop = min(os.lseek(file, start, os.SEEK_HOLE), size)
        if stop <= start:
            break
        segments.append((start, stop - start))
        position = stop
    return segments


def _append_sparse_header(member: Member, segments: list[tuple[int, int]], buffer: bytearray) -> None:
    name, real_size = member.name, member.size
    # GNU tar and Go read the map's end from a last empty piece when the file ends in a hole
    if not segments or sum(segments[-1]) != real_size:
        segments = [*segments, (real_size, 0)]
    text = encode_map(segments)
    parent, _, last = name.rpartition(b"/")
    member.name = (parent + b"/" if parent else b"") + b"GNUSparseFile.0/" + last
    member.size = len(text) + sum(length for _, length in segments)
    buffer += encode_header(
        member,
        {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"%d" % real_size,
        },
    )
    buffer += text


def _data(file: int, offset: int, length: int, name: bytes, buffer: bytearray) -> Iterator[bytes]:
    """Exactly ``length`` bytes from ``offset``: what is appended meanwhile is left out."""
    while length:
        piece = os.pread(file, min(length, _BIG_CHUNK), offset)
        if not piece:
            raise ArchiveError(name, "the file shrank while it was read")
        offset += len(piece)
        length -= len(piece)
        if len(piece) < _CHUNK:
            buffer += piece
            if len(buffer) < _CHUNK:
                continue
            piece = b""
        if buffer:
            yield bytes(buffer)
            buffer.clear()
        if piece:
            yield piece
