"""Entries in, what `docker logs` and `docker attach` show out. No I/O.

Raw shape: neighbouring output of one stream becomes one chunk of at most
256 KiB, sent on as soon as the reader has nothing more. Line shape (for
timestamps): one record a line with the time at which it ended, cut at 16 KiB as
Docker cuts, flushed when the run ends.

Each chunk says where its streams go on behind it (:attr:`Chunk.next`), so that a
reader can be made anew there.

Lost output shows as a gap in the guest's sequence numbers; :attr:`Shaper.lost`
counts the missing records.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from portlayer.journal.mark import Places
from portlayer.journal.reader import Position
from portlayer.journal.records import Entry, Kind
from portlayer.journal.tail import TailStart

__all__ = ["LARGEST_CHUNK", "LONGEST_LINE", "Chunk", "Shaper"]

LARGEST_CHUNK = 256 * 1024
LONGEST_LINE = 16 * 1024
_SEQUENCE = 1 << 32


@dataclass(frozen=True, slots=True)
class Chunk:
    stream: int
    time: int
    data: bytes
    lost: int = 0  # records that are missing before this one
    next: Places = field(default_factory=dict, compare=False)


class Shaper:
    def __init__(
        self,
        *,
        streams: Collection[int],
        lines: bool = False,
        since: int = 0,
        until: int = 0,
        tail: TailStart | None = None,
    ) -> None:
        self._streams = frozenset(streams)
        self._lines = lines
        self._since = since
        self._until = until
        self._first = dict(tail.first) if tail else {}
        self._partial: dict[int, bytearray] = {stream: bytearray() for stream in streams}
        self._begun: dict[int, tuple[Position, int]] = {}  # where the partial lines begin
        self._expected: int | None = None
        self._lost = 0
        self.past_until = False  # a record later than `until` was seen
        self.run_ended = False  # the last entry taken was the end of a run

    def feed(self, entries: list[Entry], file: int) -> list[Chunk]:
        """What to show of ``entries``, which all lie in the ``file``th file of the snapshot."""
        chunks: list[Chunk] = []
        batch: list[bytes] = []
        batch_stream = batch_time = batch_size = 0
        here = Position(file, 0)
        for entry in entries:
            kind, stream, sequence, time, data, offset = entry
            here = Position(file, offset)
            if sequence != self._expected:
                self._count_gap(kind, sequence)
            self._expected = (sequence + 1) % _SEQUENCE
            if kind != Kind.OUTPUT:
                self._end_of_run(kind, time, chunks, here)
                continue
            self.run_ended = False
            if self._until and time > self._until:
                self.past_until = True
                continue
            if stream not in self._streams or time < self._since:
                continue
            whole = len(data)
            if self._first:
                data = self._cut(stream, data, here)
            if not data:
                continue
            if self._lines:
                self._split(stream, time, data, chunks, (here, whole - len(data)))
                continue
            if batch and (stream != batch_stream or batch_size + len(data) > LARGEST_CHUNK):
                chunks.append(self._chunk(batch_stream, batch_time, b"".join(batch), (here, 0)))
                batch, batch_size = [], 0
            if not batch:
                batch_stream, batch_time = stream, time
            batch.append(data)
            batch_size += len(data)
        if batch:
            place = (Position(file, entries[-1].end), 0)
            chunks.append(self._chunk(batch_stream, batch_time, b"".join(batch), place))
        return chunks

    @property
    def pending(self) -> bool:
        """Whether a line has begun that has not ended."""
        return any(self._partial.values())

    def finish(self) -> list[Chunk]:
        """Unfinished lines, when nothing more is coming."""
        chunks: list[Chunk] = []
        self._flush(0, chunks, None)
        return chunks

    def _chunk(self, stream: int, time: int, data: bytes, place: tuple[Position, int] | None) -> Chunk:
        """``place``: everything before it has been handed on but what `_begun` and `_first` know of."""
        lost, self._lost = self._lost, 0
        if place is None:  # nothing comes behind it
            return Chunk(stream, time, data, lost)
        places = {other: self._begun.get(other) or self._first.get(other) or place for other in self._streams}
        return Chunk(stream, time, data, lost, places)

    def _count_gap(self, kind: int, sequence: int) -> None:
        if kind == Kind.BOOT or self._expected is None:
            return  # a boot starts anew; a reader may start anywhere
        gap = (sequence - self._expected) % _SEQUENCE
        if gap < _SEQUENCE // 2:
            self._lost += gap

    def _cut(self, stream: int, data: bytes, position: Position) -> bytes:
        """Leave out what lies before the first wanted byte of its stream."""
        first = self._first.get(stream)
        if first is None:
            return data
        record, byte = first
        if position < record:
            return b""
        del self._first[stream]
        return data[byte:] if position == record else data

    def _split(
        self, stream: int, time: int, data: bytes, chunks: list[Chunk], place: tuple[Position, int]
    ) -> None:
        """``place``: where the data begins."""
        partial = self._partial[stream]
        here, byte = place
        for line in data.splitlines(keepends=True) if b"\r" not in data else _split_newlines(data):
            if not partial:
                self._begun[stream] = (here, byte)
            byte += len(line)
            partial += line
            while len(partial) > LONGEST_LINE or partial.endswith(b"\n"):
                piece = bytes(partial[:LONGEST_LINE])
                del partial[:LONGEST_LINE]
                # what is left of a line that was cut came with this data: it was short enough before
                rest = self._begun[stream] = (here, byte - len(partial))
                chunks.append(self._chunk(stream, time, piece, rest))
        if not partial:
            self._begun.pop(stream, None)

    def _end_of_run(self, kind: int, time: int, chunks: list[Chunk], here: Position) -> None:
        if kind in (Kind.EXITED, Kind.FAILED, Kind.BOOT):
            self._flush(time, chunks, (here, 0))
            self.run_ended = kind != Kind.BOOT

    def _flush(self, time: int, chunks: list[Chunk], place: tuple[Position, int] | None) -> None:
        for stream, partial in self._partial.items():
            if partial:
                data = bytes(partial)
                partial.clear()
                self._begun.pop(stream, None)
                chunks.append(self._chunk(stream, time, data, place))


def _split_newlines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]]
    return [*ended, lines[-1]] if lines[-1] else ended
