"""Records of the journal, the append-only file that a container VM leaves behind: no I/O here.

A record is a frame of tether/wire.py under the journal's own magic: ``type``
is the kind, ``flags`` the output stream (1 stdout, 2 stderr), ``stream`` a
sequence number that grows by one, and the body starts with the time. Every boot
begins with BOOT, and the sequence starts anew there. Before it comes one PAD
record of full size: when the last boot was killed in the middle of a record,
its claim ends inside the PAD and cannot hide BOOT.

Two ways to read. `JournalReader` takes bytes as they come and checks
everything. `entries` hops over a file from header to header without looking at
bodies, for readers that want three life-cycle records out of 100 MB. Both agree
on what a record is: one torn by a crash costs itself only, and is counted.

Invariant: standard library only, as in tether/wire.py.
"""

from __future__ import annotations

import enum
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from tether.wire import HEADER_SIZE, MAX_RESCANS, Decoder, encode, encode_in_place, find_frame

if TYPE_CHECKING:
    from mmap import mmap  # a host's reader brings one; the guest does not import it

__all__ = [
    "BODY",
    "MAGIC",
    "MAX_BODY",
    "MAX_RECORD",
    "OUTPUT_PIECE",
    "STDERR",
    "STDOUT",
    "Entry",
    "JournalReader",
    "JournalWriter",
    "Kind",
    "Record",
    "entries",
    "verify",
]

MAGIC = b"\xa7\x4a"
STDOUT = 1
STDERR = 2
# Under TCG a record costs 0.3 ms whatever its size: at four times the channel's frames the log
# of a writer in a hurry is twice as fast. More would have to be paid for by every boot's PAD.
MAX_BODY = 128 * 1024
MAX_RECORD = MAX_BODY - 8  # the longest body behind the time
BODY = HEADER_SIZE + 8  # where in a record the bytes behind the time are
OUTPUT_PIECE = MAX_BODY - BODY  # the best OUTPUT: whole pieces of 32 KiB, which a virtio-serial port takes

_TIME = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_SEQUENCES = 1 << 32


class Kind(enum.IntEnum):
    """What a record is; the body's message in the comment."""

    PAD = 0  # zeros
    OUTPUT = 1  # bytes of the main process
    STARTED = 2  # MainState
    EXITED = 3  # MainState
    FAILED = 4  # MainState
    HEALTH = 5  # HealthEvent
    NETWORK = 6  # NetworkEvent
    OOM = 7  # OomEvent
    EXEC = 8  # ExecState, for diagnostics only
    BOOT = 9  # the boot's 16-byte nonce


class Record(NamedTuple):
    kind: int
    stream: int  # OUTPUT: 1 or 2
    sequence: int
    time: int
    body: bytes


class Entry(NamedTuple):
    """Where a record lies in a file; its body is ``file[start:end]``, not looked at: see `verify`."""

    offset: int
    kind: int
    stream: int
    sequence: int
    time: int
    start: int
    end: int


class JournalWriter:
    """Makes records and counts them. Begin every boot with `boot`."""

    def __init__(self) -> None:
        self._sequence = 0

    def boot(self, nonce: bytes) -> bytes:
        if len(nonce) != 16:
            raise ValueError("a boot nonce has 16 bytes")
        self._sequence = 0
        return encode(Kind.PAD, bytes(MAX_BODY), magic=MAGIC, most=MAX_BODY) + self.record(Kind.BOOT, nonce)

    def record(self, kind: int, body: bytes, *, stream: int = 0, at: int | None = None) -> bytes:
        """One record with a body of at most MAX_RECORD bytes; ``at`` is its time, now by default."""
        stamp = _TIME.pack(time.time_ns() if at is None else at)
        frame = encode(
            kind, body, stream=self._sequence, flags=stream, magic=MAGIC, most=MAX_BODY, prefix=stamp
        )
        self._sequence = (self._sequence + 1) % _SEQUENCES
        return frame

    def output_in_place(self, record: bytearray, size: int, stream: int) -> None:
        """Make the ``size`` bytes of output at ``record[BODY:]`` a record, where they are."""
        _TIME.pack_into(record, HEADER_SIZE, time.time_ns())
        encode_in_place(
            record, _TIME.size + size, Kind.OUTPUT, stream=self._sequence, flags=stream, magic=MAGIC
        )
        self._sequence = (self._sequence + 1) % _SEQUENCES


class JournalReader:
    """Reads a journal from its first byte, however the bytes are cut.

    ``lost`` counts records that the sequence says are missing, ``skipped`` the
    bytes that belonged to no good record.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(MAGIC, MAX_BODY)
        self._next: int | None = None
        self._torn = 0
        self.lost = 0

    @property
    def skipped(self) -> int:
        return self._torn + self._decoder.noise

    def feed(self, data: bytes) -> list[Record]:
        records = []
        for kind, stream, sequence, body in self._decoder.feed(data):
            if len(body) < 8:  # good checksums, no time: nobody of ours wrote it
                self._torn += HEADER_SIZE + len(body)
                continue
            if kind == Kind.PAD:
                continue
            if kind == Kind.BOOT:
                self._next = sequence
            elif self._next is not None:
                self.lost += (sequence - self._next) % _SEQUENCES
            self._next = (sequence + 1) % _SEQUENCES
            records.append(Record(kind, stream, sequence, _TIME.unpack_from(body)[0], body[8:]))
        return records

    def next_file(self) -> None:
        """The next bytes are a younger file's: what the last one ends in the middle of is torn."""
        self._torn += self._decoder.pending + self._decoder.noise
        self._decoder = Decoder(MAGIC, MAX_BODY)


def entries(file: bytes | mmap, offset: int = 0) -> Iterator[Entry]:
    """The whole records of a journal file at or after ``offset``, without reading bodies.

    ``offset`` is 0 or a place where a record begins or ended. The iterator
    stops before a record that is not complete yet. A body's checksum is looked
    at only where no header follows the record: that is what a torn one looks like.
    A mapped file cannot be closed before the iterator is.
    """
    with memoryview(file) as view:
        held: Entry | None = None  # not yielded before its end has proved to be one
        position = offset
        bad = 0
        while True:
            start, found = find_frame(view, file, position, MAGIC, MAX_BODY)
            if held is not None:
                if (found is None or start != position) and not _body_checks(view, held):
                    bad += 1
                    # A torn record's claim may hide good ones. Believing that for ever
                    # would let a hostile file make us sum each byte thousands of times.
                    position = held.offset + 1 if bad <= MAX_RESCANS else held.end
                    held = None
                    continue
                if held.kind != Kind.PAD:
                    yield held
                held = None
            if found is None:
                return
            kind, stream, sequence, length, _ = found
            body = start + HEADER_SIZE
            end = body + length
            if end > len(file):
                return
            if length < _TIME.size:
                position = end
                continue
            (at,) = _TIME.unpack_from(view, body)
            held = Entry(start, kind, stream, sequence, at, body + _TIME.size, end)
            position = end


def verify(file: bytes | mmap, entry: Entry) -> bool:
    """Whether the record's body is what was written."""
    with memoryview(file) as view:
        return _body_checks(view, entry)


def _body_checks(view: memoryview, entry: Entry) -> bool:
    (wanted,) = _CRC.unpack_from(view, entry.offset + 12)
    return crc32(view[entry.offset + HEADER_SIZE : entry.end]) == int(wanted)
