"""The tar format as a state machine: bytes in, members and their data out. No I/O.

``feed`` yields a :class:`Member`, then its data in pieces of any size as
``memoryview`` (valid until the caller takes the next piece), then the next
member. All of GNU's and PAX's extensions are folded into the member before it
is yielded. Two zero blocks end the archive; what follows them is ignored, as
Go's and GNU's readers do.

Where the stream is:

    HEADER ──> HEADER       a header, zero block, or the archive's end
    HEADER ──> COLLECT      the body of a PAX or long-name header
    HEADER ──> GNU_MAP      extension blocks of an old GNU sparse header
    HEADER ──> PAX_MAP      the map in front of a PAX 1.0 sparse file's data
    any    ──> DATA         the data of a member that was yielded (or is skipped)
    DATA   ──> PADDING ──> HEADER
"""

from __future__ import annotations

from archive.errors import ArchiveError
from archive.limits import Limits
from archive.members import (
    BLOCK,
    DIRECTORY,
    FILE,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    PAX,
    PAX_GLOBAL,
    SOLARIS_PAX,
    ZERO_BLOCK,
    Member,
    padding,
    parse_header,
    parse_number,
)
from archive.pax import parse_records
from archive.records import apply_records
from archive.sparse import MapReader, check_map, map_from_records, parse_gnu_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Decoder"]

_HEADER, _COLLECT, _GNU_MAP, _PAX_MAP, _DATA, _PADDING, _END = range(7)
_EXTENSIONS = frozenset((PAX, SOLARIS_PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK))
_KINDS = frozenset((b"0", b"1", b"2", b"3", b"4", b"5", b"6"))
_VOLUME_LABEL = b"V"
_GLOBAL_HARMLESS = (b"comment", b"hdrcharset", b"charset")
_MAX_ID = 0xFFFFFFFE  # the last one means "leave as it is" to chown


class Decoder:
    """Reads one archive. After an exception the decoder is of no further use."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._state = _HEADER
        self._block = bytearray()  # an incomplete block (or extension body)
        self._wanted = BLOCK  # bytes of `_block` that complete it
        self._left = 0  # data or padding still to come
        self._pad = 0  # padding behind the data
        self._zero_blocks = 0
        self._extension: Member | None = None
        self._member: Member | None = None  # waits for its sparse map
        self._map_reader: MapReader | None = None
        self._skip = False
        self._records: list[tuple[bytes, bytes]] = []
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._members = 0
        self._total = 0
        self._stream = 0  # bytes fed
        self.offset = 0  # of the stream: just behind what the last event was made of

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Member | memoryview]:
        """Take the next bytes; exhaust the iterator before the next call."""
        view = memoryview(data)
        end = len(view)
        position = 0
        start = self._stream
        self._stream += end
        while position < end:
            if self._state == _DATA:
                stop = min(end, position + self._left)
                self._left -= stop - position
                if not self._left:
                    self._begin_padding()
                if not self._skip:
                    self.offset = start + stop
                    yield view[position:stop]
                position = stop
            elif self._state == _PADDING:
                stop = min(end, position + self._left)
                self._left -= stop - position
                position = stop
                if not self._left:
                    self._state = _HEADER
            elif self._state == _END:
                return
            else:
                missing = self._wanted - len(self._block)
                self._block += view[position : position + missing]
                position = min(end, position + missing)
                if len(self._block) == self._wanted:
                    block = bytes(self._block)
                    self._block.clear()
                    member = self._take(block)
                    if member is not None:
                        self.offset = start + position
                        yield member

    def finish(self) -> None:
        """No more bytes come.

        Raises:
            ArchiveError: the archive is cut off in the middle of something.
        """
        pending = self._extension or self._records or self._long_name or self._long_link
        at_boundary = self._state == _HEADER and not self._block and not pending
        if not at_boundary and self._state not in (_PADDING, _END):
            name = self._member.name if self._member else b""
            raise ArchiveError(name, "the archive is cut off")

    # -- blocks

    def _take(self, block: bytes) -> Member | None:
        if self._state == _COLLECT:
            self._take_extension(block)
            return None
        if self._state == _GNU_MAP:
            return self._take_gnu_map(block)
        if self._state == _PAX_MAP:
            return self._take_pax_map(block)
        if block == ZERO_BLOCK:
            self._zero_blocks += 1
            if self._zero_blocks == 2:
                self._state = _END
            return None
        if self._zero_blocks:
            raise ArchiveError(b"", "an entry behind the end of the archive (lone zero block)")
        member = parse_header(block)
        if member.size < 0:
            raise ArchiveError(member.name, "negative size")
        if member.kind in _EXTENSIONS:
            self._expect_extension(member)
            return None
        return self._complete(member, block)

    def _expect_extension(self, header: Member) -> None:
        if header.size > self._limits.extended_header:
            raise ArchiveError(
                header.name, f"extended header larger than {self._limits.extended_header} bytes"
            )
        self._extension = header
        self._state = _COLLECT
        self._wanted = header.size + padding(header.size)
        if not self._wanted:
            self._take_extension(b"")

    def _take_extension(self, body: bytes) -> None:
        header = self._extension
        assert header is not None
        self._extension = None
        self._state = _HEADER
        self._wanted = BLOCK
        body = body[: header.size]
        if header.kind == GNU_LONG_NAME:
            self._long_name = body.split(b"\0", 1)[0]
        elif header.kind == GNU_LONG_LINK:
            self._long_link = body.split(b"\0", 1)[0]
        else:
            records = parse_records(body, header.name)
            if header.kind == PAX_GLOBAL:
                for key, _ in records:
                    if key not in _GLOBAL_HARMLESS:
                        shown = key[:64].decode("utf-8", "backslashreplace")
                        raise ArchiveError(b"", f"global PAX record {shown!r} is not supported")
            else:
                self._records = records

    def _complete(self, member: Member, block: bytes) -> Member | None:
        """Fold extensions into a real member; None while its sparse map is still to come."""
        records, self._records = self._records, []
        sparse_format = apply_records(member, records) if records else None
        if self._long_name is not None:
            member.name, self._long_name = self._long_name, None
        if self._long_link is not None:
            member.link, self._long_link = self._long_link, None
        self._check(member)
        if member.kind == GNU_SPARSE:
            member.kind = FILE
            member.real_size = parse_number(block[483:495], member.name, "size")
            member.sparse = parse_gnu_entries(block[386:482], member.name)
            if block[482]:
                self._member = member
                self._state = _GNU_MAP
                return None
        elif sparse_format == b"1.0":
            self._member = member
            self._map_reader = MapReader(member.name)
            self._state = _PAX_MAP
            if member.size < BLOCK:
                raise ArchiveError(member.name, "malformed sparse map")
            return None
        elif member.kind == FILE:
            member.sparse = map_from_records(records, member.name) if records else None
            if member.sparse is None:
                member.real_size = member.size
        return self._begin(member)

    def _check(self, member: Member) -> None:
        limits = self._limits
        self._members += 1
        if self._members > limits.members:
            raise ArchiveError(member.name, f"more than {limits.members} entries")
        if not member.name:
            raise ArchiveError(b"", "an entry without a name")
        if len(member.name) > limits.name or len(member.link) > limits.name:
            raise ArchiveError(member.name, f"name longer than {limits.name} bytes")
        if b"\0" in member.name or b"\0" in member.link:
            raise ArchiveError(member.name, "a name with a zero byte")
        if member.name.count(b"/") > limits.depth:
            raise ArchiveError(member.name, f"deeper than {limits.depth} directories")
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
            raise ArchiveError(member.name, "user or group ID out of range")
        if len(member.xattrs) > limits.xattrs:
            raise ArchiveError(member.name, f"more than {limits.xattrs} extended attributes")

    # -- sparse maps

    def _take_gnu_map(self, block: bytes) -> Member | None:
        member = self._member
        assert member is not None and member.sparse is not None
        member.sparse += parse_gnu_entries(block[:504], member.name)
        if len(member.sparse) > 1 << 20:
            raise ArchiveError(member.name, "too many pieces of a sparse file")
        if block[504]:
            return None
        self._member = None
        return self._begin(member)

    def _take_pax_map(self, block: bytes) -> Member | None:
        member = self._member
        assert member is not None and self._map_reader is not None
        member.size -= BLOCK
        member.sparse = self._map_reader.feed(block)
        if member.sparse is None:
            if member.size < BLOCK:
                raise ArchiveError(member.name, "malformed sparse map")
            return None
        self._member = self._map_reader = None
        return self._begin(member)

    # -- data

    def _begin(self, member: Member) -> Member | None:
        """Hand a member out and expect its data."""
        limits = self._limits
        size = member.size
        self._skip = False
        if member.kind == FILE:
            if member.sparse is not None:
                check_map(member.sparse, size=size, real_size=member.real_size, member=member.name)
                if member.real_size > self._stream * limits.sparse_ratio:
                    raise ArchiveError(member.name, "a sparse file out of all proportion to the archive")
            if member.real_size > limits.file_bytes:
                raise ArchiveError(member.name, f"larger than {limits.file_bytes} bytes")
            self._total += member.real_size
            if self._total > limits.total_bytes:
                raise ArchiveError(member.name, f"the content is larger than {limits.total_bytes} bytes")
        elif member.kind == _VOLUME_LABEL:
            self._skip = True
        elif member.kind not in _KINDS:
            shown = member.kind.decode("latin-1")
            raise ArchiveError(member.name, f"entries of type {shown!r} are not supported")
        self._pad = padding(size)
        self._left = size
        if size:
            self._state = _DATA
        else:
            self._begin_padding()
        if member.kind == DIRECTORY:
            member.name = member.name.rstrip(b"/") or b"/"
        return None if self._skip else member

    def _begin_padding(self) -> None:
        self._left = self._pad
        self._state = _PADDING if self._left else _HEADER
