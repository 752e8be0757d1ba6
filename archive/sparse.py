"""Maps of sparse files in the four ways tar writes them. No I/O.

    GNU old      in the header ('S') and in extension blocks behind it
    PAX 0.0      repeated records GNU.sparse.offset, GNU.sparse.numbytes
    PAX 0.1      one record GNU.sparse.map
    PAX 1.0      decimal lines in front of the data   (the one we write)

A map is a list of (offset, length), ascending and without overlap, checked by
:func:`check_map` before anything is written by it.
"""

from __future__ import annotations

from archive.errors import ArchiveError
from archive.members import BLOCK, parse_number
from archive.pax import parse_decimal

__all__ = [
    "MapReader",
    "check_map",
    "encode_map",
    "map_from_records",
    "parse_gnu_entries",
]

_ENTRY = 24  # two 12-byte numbers in old GNU headers
_MAX_ENTRIES = 1 << 20


def check_map(segments: list[tuple[int, int]], *, size: int, real_size: int, member: bytes) -> None:
    """Refuse a map that overlaps, leaves the file or does not describe ``size`` bytes of data."""
    position = total = 0
    for offset, length in segments:
        if offset < position or length < 0 or offset + length > real_size:
            raise ArchiveError(member, "malformed sparse map")
        position = offset + length
        total += length
    if total != size:
        raise ArchiveError(member, "the sparse map does not match the size of the data")


def parse_gnu_entries(area: bytes, member: bytes) -> list[tuple[int, int]]:
    """Entries of an old GNU header or extension block; the first empty one ends the list."""
    segments = []
    for start in range(0, len(area), _ENTRY):
        if area[start] == 0:
            break
        offset = parse_number(area[start : start + 12], member, "sparse map")
        length = parse_number(area[start + 12 : start + _ENTRY], member, "sparse map")
        segments.append((offset, length))
    return segments


def map_from_records(records: list[tuple[bytes, bytes]], member: bytes) -> list[tuple[int, int]] | None:
    """The map that PAX 0.0 or 0.1 records hold; None when there is none."""
    numbers: list[int] = []
    found = False
    for key, value in records:
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            found = True
            if (len(numbers) % 2 == 0) != (key == b"GNU.sparse.offset"):
                raise ArchiveError(member, "malformed sparse map")
            numbers.append(parse_decimal(value, member, "sparse map"))
        elif key == b"GNU.sparse.map":
            found = True
            numbers = (
                [parse_decimal(part, member, "sparse map") for part in value.split(b",")] if value else []
            )
    if not found:
        return None
    if len(numbers) % 2:
        raise ArchiveError(member, "malformed sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


class MapReader:
    """Collects a PAX 1.0 map, block by block."""

    __slots__ = ("_buffer", "_expected", "_member", "_numbers")

    def __init__(self, member: bytes) -> None:
        self._member = member
        self._buffer = b""
        self._numbers: list[int] = []
        self._expected = -1

    def feed(self, block: bytes) -> list[tuple[int, int]] | None:
        """The map, once ``block`` completes it."""
        lines = (self._buffer + block).split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            number = parse_decimal(line, self._member, "sparse map")
            if self._expected < 0:
                if number > _MAX_ENTRIES:
                    raise ArchiveError(self._member, f"more than {_MAX_ENTRIES} pieces of a sparse file")
                self._expected = 2 * number
            else:
                self._numbers.append(number)
            if len(self._numbers) == self._expected:
                return list(zip(self._numbers[::2], self._numbers[1::2], strict=True))
        if len(self._buffer) > 32:
            raise ArchiveError(self._member, "malformed sparse map")
        return None


def encode_map(segments: list[tuple[int, int]]) -> bytes:
    """A PAX 1.0 map, padded to whole blocks."""
    text = b"%d\n" % len(segments) + b"".join(b"%d\n%d\n" % segment for segment in segments)
    return text + bytes(-len(text) % BLOCK)
