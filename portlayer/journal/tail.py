"""Where the last N lines of a journal begin, found from its end.

A line ends at a newline, at the end of a run (EXITED, BOOT) or at the end of
the journal; it belongs to one stream, and lines are ordered by where they end.
The search reads windows backwards, so its cost is that of the answer, not of the
journal. The result says for each stream from which byte on its output belongs
to the last N lines.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from portlayer.journal.reader import Position, Snapshot
from portlayer.journal.records import LONGEST_RECORD, Entry, Kind

__all__ = ["TailStart", "find_tail"]

WINDOW = 256 * 1024
_RUN_ENDS = frozenset({Kind.EXITED, Kind.FAILED, Kind.BOOT})


@dataclass(frozen=True)
class TailStart:
    """Read from ``position``; of stream s leave out what lies before ``first[s]``."""

    position: Position
    first: dict[int, tuple[Position, int]] = field(default_factory=dict)  # record, byte of its data


def find_tail(snapshot: Snapshot, lines: int, streams: Collection[int]) -> TailStart:
    """Blocks; at most one window of one file is in memory."""
    search = _Search(lines, streams)
    for number in range(len(snapshot.files) - 1, -1, -1):
        file = snapshot.files[number]
        end = file.size
        while end > 0:
            start = max(0, end - max(WINDOW, 2 * LONGEST_RECORD))
            entries = file.entries(start, end)
            for entry in reversed(entries):
                if search.take(Position(number, entry.offset), entry):
                    return search.result(snapshot.start)
            # what was cut at the window's start belongs to the window before
            end = entries[0].offset if start and entries else start
    return search.result(snapshot.start)


class _Search:
    def __init__(self, lines: int, streams: Collection[int]) -> None:
        self._missing = lines
        self._open = set(streams)  # streams whose first byte is not known yet
        self._at_run_end = dict.fromkeys(streams, True)
        self._first: dict[int, tuple[Position, int]] = {}

    def take(self, position: Position, entry: Entry) -> bool:
        """One record further back; true when the answer is complete."""
        if entry.kind in _RUN_ENDS:
            self._at_run_end = dict.fromkeys(self._at_run_end, True)
            return False
        stream, data = entry.stream, entry.data
        if entry.kind != Kind.OUTPUT or stream not in self._open or not data:
            return False
        # each line end in this record, the last first; an end is the byte behind it
        end = len(data)
        unfinished = self._at_run_end[stream] and not data.endswith(b"\n")
        self._at_run_end[stream] = False
        if unfinished and self._line_end(stream, position, end):
            return not self._open
        while (newline := data.rfind(b"\n", 0, end)) >= 0:
            if self._line_end(stream, position, newline + 1):
                return not self._open
            end = newline
        return False

    def _line_end(self, stream: int, position: Position, byte: int) -> bool:
        """True when ``stream``'s wanted output starts behind this line end."""
        if self._missing > 0:
            self._missing -= 1
            return False
        self._first[stream] = (position, byte)
        self._open.discard(stream)
        return True

    def result(self, start: Position) -> TailStart:
        """A stream that is still open is wanted from the journal's start."""
        if self._open or not self._first:
            return TailStart(start, self._first)
        return TailStart(min(position for position, _ in self._first.values()), self._first)
