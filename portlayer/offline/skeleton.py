"""A layer's archive without the files' content: what it takes to make the very same bytes again.

The disk has what the files hold, and nothing of how the archive said it: header formats, the order
of entries, padding, times of files that an entry behind replaced. So while a layer is unpacked,
:class:`Recorder` notes every byte that is no file's content, and where content goes; :func:`replay`
puts the two together. Layers pushed and saved have their original digest that way.

The skeleton is one zlib stream of records: ``L`` length, bytes; ``F`` size, path length, path;
``E`` size of the whole archive. Content that a later entry of the same layer replaces is kept in a
second file beside it.

Not seen: one file under two names by way of a symbolic link inside the layer, and then replaced.
Then the bytes are not the original's, and whoever checks the digest (everybody does) refuses them.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib

from archive import paths
from archive.decoder import Decoder
from archive.errors import ArchiveError
from archive.members import DIRECTORY, FILE, Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Recorder", "SkeletonError", "replay"]

_LITERAL = struct.Struct("<cI")
_REFERENCE = struct.Struct("<cQH")
_END = struct.Struct("<cQ")
_REPLACED = struct.Struct("<QQ")
_INLINE = 512  # bytes of content that are cheaper to keep than to look up
_LEVEL = 3
_PIECE = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SkeletonError(Exception):
    """The skeleton is damaged, or the disk is not the one it was made with."""


class Recorder:
    """Follows an archive on its way to the unpacker. ``replaced`` is made only when it is needed."""

    def __init__(self, root_fd: int, skeleton: str, replaced: str) -> None:
        self._root_fd = root_fd
        self._decoder = Decoder()
        self._compressor = zlib.compressobj(_LEVEL)
        self._file = os.open(skeleton, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._replaced_path = replaced
        self._replaced = -1
        self._fed = 0
        self._count = 0
        self._files: dict[bytes, tuple[int, int]] = {}  # name -> (number of its reference, size)
        self._directories: set[bytes] = set()  # above the names in `_files`
        self._on_disk = False  # the content that comes now

    def feed(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Take the next bytes and yield them in pieces, each to be unpacked before the next is asked for.

        Raises:
            ArchiveError: as the unpacker would.
        """
        view = memoryview(data)
        start, self._fed = self._fed, self._fed + len(view)
        passed = literal = 0
        for event in self._decoder.feed(view):
            at = self._decoder.offset - start
            if not isinstance(event, Member):
                if self._on_disk:
                    literal = at
                continue
            name = _plain(event.name)
            doomed = self._replaced_by(event, name)
            if doomed:
                # all that is before this member must be on the disk, and not yet the member itself
                yield view[passed : at - 1]
                passed = at - 1
                for other in doomed:
                    self._keep(other)
            self._on_disk = _is_on_disk(event, name)
            if self._on_disk:
                self._write_literal(view[literal:at])
                literal = at
                self._write_reference(name, event.size)
        self._write_literal(view[literal:])
        yield view[passed:]

    def finish(self) -> int:
        """The archive ends here. Its size; everything is on disk."""
        self._write(_END.pack(b"E", self._fed))
        _write_all(self._file, self._compressor.flush())
        for fd in (self._file, self._replaced):
            if fd >= 0:
                os.fsync(fd)
        self.close()
        return self._fed

    def close(self) -> None:
        for fd in (self._file, self._replaced):
            if fd >= 0:
                os.close(fd)
        self._file = self._replaced = -1

    def _replaced_by(self, member: Member, name: bytes) -> list[bytes]:
        """Files whose content this member takes away."""
        if member.kind == DIRECTORY:
            return [name] if name in self._files else []
        doomed = [name] if name in self._files else []
        if name in self._directories:
            doomed += [other for other in self._files if other.startswith(name + b"/")]
        return doomed

    def _keep(self, name: bytes) -> None:
        number, size = self._files.pop(name)
        if self._replaced < 0:
            self._replaced = os.open(
                self._replaced_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        _write_all(self._replaced, _REPLACED.pack(number, size))
        with _Tree(self._root_fd) as tree:
            for piece in tree.content(name, size):
                _write_all(self._replaced, piece)

    def _write_literal(self, data: memoryview) -> None:
        if data:
            self._write(_LITERAL.pack(b"L", len(data)))
            self._write(data)

    def _write_reference(self, name: bytes, size: int) -> None:
        self._files[name] = (self._count, size)
        self._count += 1
        parent = name.rpartition(b"/")[0]
        while parent and parent not in self._directories:
            self._directories.add(parent)
            parent = parent.rpartition(b"/")[0]
        self._write(_REFERENCE.pack(b"F", size, len(name)) + name)

    def _write(self, data: bytes | memoryview) -> None:
        packed = self._compressor.compress(data)
        if packed:
            _write_all(self._file, packed)


def _plain(name: bytes) -> bytes:
    """The name as the unpacker takes it: ``..`` lexically, no slashes at the ends."""
    names: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not names:
                raise ArchiveError(name, "the name leads out of the archive")
            names.pop()
        elif part not in (b"", b"."):
            names.append(part)
    return b"/".join(names)


def _is_on_disk(member: Member, name: bytes) -> bool:
    last = name.rpartition(b"/")[2]
    return (
        member.kind == FILE
        and member.sparse is None
        and member.size > _INLINE
        and not last.startswith(b".wh.")
    )


def replay(root_fd: int, skeleton: str, replaced: str) -> Iterator[bytes]:
    """The archive again. The caller checks its digest.

    Raises:
        SkeletonError
    """
    kept = _kept_content(replaced)
    number = 0
    total = 0
    with open(skeleton, "rb") as file, _Tree(root_fd) as tree:
        reader = _Reader(file)
        while True:
            kind = reader.read(1)
            if kind == b"L":
                (size,) = struct.unpack("<I", reader.read(4))
                piece = reader.read(size)
                total += size
                yield piece
            elif kind == b"F":
                size, length = struct.unpack("<QH", reader.read(10))
                name = reader.read(length)
                total += size
                if number in kept:
                    yield from _range(replaced, kept[number], size)
                else:
                    yield from tree.content(name, size)
                number += 1
            elif kind == b"E":
                if struct.unpack("<Q", reader.read(8))[0] != total:
                    raise SkeletonError("the layer's skeleton has another size than its archive")
                return
            else:
                raise SkeletonError("the layer's skeleton is damaged")


class _Reader:
    """Exact reads from a zlib stream."""

    def __init__(self, file: object) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            packed = self._inflate.unconsumed_tail or self._file.read(_PIECE)  # type: ignore[attr-defined]
            if not packed:
                raise SkeletonError("the layer's skeleton is cut off")
            try:
                self._buffer += self._inflate.decompress(packed, _PIECE)
            except zlib.error as error:
                raise SkeletonError(f"the layer's skeleton is damaged: {error}") from error
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        return piece


def _kept_content(path: str) -> dict[int, int]:
    """Number of a reference -> where its content lies."""
    places: dict[int, int] = {}
    if not os.path.exists(path):
        return places
    with open(path, "rb") as file:
        while header := file.read(_REPLACED.size):
            number, size = _REPLACED.unpack(header)
            places[number] = file.tell()
            file.seek(size, os.SEEK_CUR)
    return places


def _range(path: str, offset: int, size: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(offset)
        while size:
            piece = file.read(min(size, _PIECE))
            if not piece:
                raise SkeletonError("content that a layer replaced is cut off")
            size -= len(piece)
            yield piece


class _Tree:
    """Files of the layer's disk; the directory of the last one stays open: archives come sorted."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._parent = b""
        self._directory = paths.open_directory(root_fd, [])

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *details: object) -> None:
        self._directory.close()

    def content(self, name: bytes, size: int) -> Iterator[bytes]:
        """Exactly ``size`` bytes."""
        parent, _, last = name.rpartition(b"/")
        try:
            if parent != self._parent:
                directory = paths.open_directory(self._root_fd, paths.clean(parent))
                self._directory.close()
                self._directory, self._parent = directory, parent
            fd = os.open(last, _OPEN_FILE, dir_fd=self._directory.fd)
        except OSError as error:
            raise SkeletonError(f"{name[:200]!r} of the layer cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise SkeletonError(f"{name[:200]!r} is not the file that the layer's archive had")
            while size:
                piece = os.read(fd, min(size, _PIECE))
                if not piece:
                    raise SkeletonError(f"{name[:200]!r} shrank")
                size -= len(piece)
                yield piece
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
