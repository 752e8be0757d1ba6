"""From journal bytes to entries, fast, without I/O.

The layout is the one of ``tether.journal``; this scanner exists beside it because
`docker logs` must reach 50 MB/s: it returns lists of tuples and touches each
byte once. A torn or foreign record costs itself only: the scan goes on one byte
behind its magic, but not for ever: behind MAX_RESCANS false claims a record's
length is believed, or a hostile file could have each byte summed thousands of
times.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import NamedTuple

from tether.journal import MAGIC, MAX_BODY, Kind
from tether.wire import HEADER_SIZE, MAX_RESCANS

__all__ = ["HEADER_SIZE", "LONGEST_RECORD", "Entry", "Kind", "Scanner"]

LONGEST_RECORD = HEADER_SIZE + MAX_BODY
_HEADER = Struct("<2sBBIIII")  # magic, kind, flags, sequence, body length, body CRC, header CRC
_TIME = Struct("<Q")


class Entry(NamedTuple):
    kind: int
    stream: int  # OUTPUT: 1 or 2
    sequence: int
    time: int  # ns since the epoch, by the guest's clock
    data: bytes
    offset: int  # of the record in its file

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + HEADER_SIZE + _TIME.size + len(self.data)


class Scanner:
    """Fed any pieces of one file in order; the remainder of a cut record is kept."""

    def __init__(self, offset: int = 0) -> None:
        self._rest = b""
        self._offset = offset  # of _rest[0]
        self._false_claims = 0

    @property
    def offset(self) -> int:
        """Where the first byte lies that no entry has covered yet."""
        return self._offset

    def feed(self, data: bytes) -> list[Entry]:
        buffer = self._rest + data if self._rest else data
        entries: list[Entry] = []
        end = len(buffer)
        at = 0
        unpack, crc32, time_of = _HEADER.unpack_from, zlib.crc32, _TIME.unpack_from
        while end - at >= HEADER_SIZE:
            magic, kind, flags, sequence, length, body_crc, header_crc = unpack(buffer, at)
            if (
                magic != MAGIC
                or not _TIME.size <= length <= MAX_BODY
                or crc32(MAGIC, crc32(buffer[at : at + HEADER_SIZE - 4])) != header_crc
            ):
                at = _next_magic(buffer, at + 1)
                continue
            body_at = at + HEADER_SIZE
            next_at = body_at + length
            if next_at > end:
                break
            body = buffer[body_at:next_at]
            if crc32(body) != body_crc:
                self._false_claims += 1
                at = _next_magic(buffer, at + 1) if self._false_claims <= MAX_RESCANS else next_at
                continue
            if kind == Kind.PAD:
                at = next_at
                continue
            time = time_of(body)[0]
            entries.append(Entry(kind, flags, sequence, time, body[_TIME.size :], self._offset + at))
            at = next_at
        self._rest = buffer[at:]
        self._offset += at
        return entries


def _next_magic(buffer: bytes, start: int) -> int:
    """Where the next record may start; near the end, where a cut magic may lie."""
    found = buffer.find(MAGIC, start)
    if found >= 0:
        return found
    return max(start, len(buffer) - len(MAGIC) + 1)
