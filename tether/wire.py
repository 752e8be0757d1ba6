"""Frames of the byte stream between port layer and tether: bytes in, frames out, no I/O.

The stream may start in the middle of a frame, carry a firmware's chatter or be
cut at any byte. So every header proves itself (magic, length cap and a CRC of
its own), every body proves itself, and a decoder that meets anything else looks
for the next header that does, one byte further each time: noise costs the frame
it damaged and nothing else. What a peer can make us hold is one frame.

A header's own check goes once more over the magic. Without that, header and check
would be data with its CRC, all of which have the same CRC: one header could pass
for another as the body of a frame that was cut right behind its own.

The same header carries the journal's records under another magic (tether/journal.py).

Invariant: only the standard library is imported here, and little of it. Every
import is boot latency of every container.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    from mmap import mmap  # the journal's reader; the guest does not import it

__all__ = [
    "END",
    "HEADER_SIZE",
    "MAGIC",
    "MAX_BODY",
    "MAX_RESCANS",
    "MORE",
    "PADDING",
    "PIECE",
    "Code",
    "Decoder",
    "Frame",
    "Type",
    "encode",
    "encode_in_place",
    "find_frame",
]

MAGIC = b"\xa7\x4d"
HEADER_SIZE = 20
MAX_BODY = 32 * 1024

# The best body for bulk data: header and body fill one 32 KiB write, the most
# that a virtio-serial port takes at once.
PIECE = MAX_BODY - HEADER_SIZE

# Sent before RESET: whatever frame the peer's decoder is in the middle of is
# completed by these zeros, fails its check, and is forgotten.
PADDING = bytes(MAX_BODY + HEADER_SIZE)

END = 0x01  # DATA: the sender's half ends; RESPONSE: the call ends
MORE = 0x02  # REQUEST, RESPONSE: the message continues in the stream's next frame of this type

# Damage that is worth looking at twice. A peer that packs header behind header,
# each with a false claim, would otherwise make us sum every byte 1,600 times;
# past this many, a damaged frame is skipped with all it claims.
MAX_RESCANS = 1024

_HEAD = struct.Struct("<2sBBIII")  # magic, type, flags, stream, body length, CRC of the body
_HEADER = struct.Struct("<2sBBIIII")  # and the CRC of all that and the magic
_CRC = struct.Struct("<I")


class Type(enum.IntEnum):
    RESET = 1
    REQUEST = 2
    RESPONSE = 3
    ERROR = 4
    DATA = 5
    CREDIT = 6
    CANCEL = 7
    PING = 8
    PONG = 9


class Code(enum.IntEnum):
    """Codes of ERROR frames: gRPC's numbers, so that the port layer hands them on unchanged."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class Frame(NamedTuple):
    type: int  # a Type, or a number nobody has defined yet
    flags: int
    stream: int
    body: bytes


def encode(
    type: int,
    body: bytes | memoryview = b"",
    *,
    stream: int = 0,
    flags: int = 0,
    magic: bytes = MAGIC,
    most: int = MAX_BODY,
    prefix: bytes = b"",
) -> bytes:
    """One frame. ``prefix`` and ``body`` make its body, together at most ``most`` bytes."""
    size = len(prefix) + len(body)
    if size > most:
        raise ValueError(f"a frame's body has at most {most} bytes, not {size}")
    head = _HEAD.pack(magic, type, flags, stream, size, crc32(body, crc32(prefix)))
    return b"".join((head, _CRC.pack(crc32(magic, crc32(head))), prefix, body))


def encode_in_place(frame: bytearray, size: int, type: int, *, stream: int, flags: int, magic: bytes) -> None:
    """Make a frame of the ``size`` bytes that lie in ``frame`` behind the room for a header: no copy."""
    with memoryview(frame) as view:
        _HEAD.pack_into(
            frame, 0, magic, type, flags, stream, size, crc32(view[HEADER_SIZE : HEADER_SIZE + size])
        )
        _CRC.pack_into(frame, HEADER_SIZE - 4, crc32(magic, crc32(view[: HEADER_SIZE - 4])))


def find_frame(
    data: memoryview, raw: bytes | bytearray | mmap, position: int, magic: bytes, most: int
) -> tuple[int, tuple[int, int, int, int, int] | None]:
    """Find the first header that checks at or after ``position``.

    ``data`` is a view of ``raw``; ``most`` is the longest body. Returns the header's
    offset with (type, flags, stream, length, CRC of the body); or, with None, the
    offset from which there might be one when more bytes have come.
    """
    size = len(raw)
    while True:
        start = raw.find(magic, position)
        if start < 0:
            # A magic may be cut behind its first byte.
            torn = size > position and raw[size - 1] == magic[0]
            return (size - 1 if torn else size), None
        if size - start < HEADER_SIZE:
            return start, None
        _, type, flags, stream, length, body_crc, head_crc = _HEADER.unpack_from(data, start)
        if length <= most and crc32(magic, crc32(data[start : start + HEADER_SIZE - 4])) == head_crc:
            return start, (type, flags, stream, length, body_crc)
        position = start + 1


class Decoder:
    """Turns the bytes of one direction into frames.

    ``noise`` counts the bytes that belonged to no good frame.
    """

    def __init__(self, magic: bytes = MAGIC, most: int = MAX_BODY) -> None:
        """``most``: of a body's bytes."""
        self._magic = magic
        self._most = most
        self._rest = bytearray()
        self._need = HEADER_SIZE  # how long `_rest` must be before looking again is worth it
        self._bad_bodies = 0
        self.noise = 0

    @property
    def pending(self) -> int:
        """Bytes held back because their frame is not whole."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes of the stream, however they are cut; return the frames they complete."""
        rest = self._rest
        if not rest:
            frames, used = self._parse(data)
            if used < len(data):
                rest += memoryview(data)[used:]
            return frames
        rest += data
        if len(rest) < self._need:
            return []
        frames, used = self._parse(rest)
        del rest[:used]
        return frames

    def _parse(self, raw: bytes | bytearray) -> tuple[list[Frame], int]:
        """The frames in ``raw`` and how many of its bytes are done with."""
        frames: list[Frame] = []
        position = 0
        size = len(raw)
        with memoryview(raw) as view:
            while True:
                start, found = find_frame(view, raw, position, self._magic, self._most)
                self.noise += start - position
                if found is None:
                    self._need = HEADER_SIZE
                    return frames, start
                type, flags, stream, length, body_crc = found
                end = start + HEADER_SIZE + length
                if end > size:
                    self._need = end - start
                    return frames, start
                body = bytes(view[start + HEADER_SIZE : end])
                if crc32(body) != body_crc:
                    # A good frame may lie inside what a cut one claimed.
                    self._bad_bodies += 1
                    position = start + 1 if self._bad_bodies <= MAX_RESCANS else end
                    self.noise += position - start
                    continue
                frames.append(Frame(type, flags, stream, body))
                position = end
