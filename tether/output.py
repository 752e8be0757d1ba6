"""One output stream of a process between its pump and its readers.

Positions are offsets from the stream's beginning. A reader's connection can
be cut with sent bytes on their way, so an exec's ring keeps IN_FLIGHT bytes
behind the slowest reader, and its pump waits rather than overwrite them. The
same holds while a reader is expected: before the first one comes, and after
one has been cut off. Without any, the newest bytes win.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tether.journal import OUTPUT_PIECE
from tether.loop import Loop
from tether.pump import CHUNK
from tether.recorder import Recorder
from tether.ring import Ring
from tether.session import QUEUE, WINDOW

__all__ = ["IN_FLIGHT", "ExecOutput", "MainOutput", "Output"]

# What a reader has been sent and may not have: credit on the wire, and our own queue.
IN_FLIGHT = WINDOW + QUEUE + CHUNK
_MAIN_RING = 256 * 1024


class Output:
    chunk = CHUNK

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.ended = False
        self._positions: dict[object, int] = {}

    # -- a pump's sink

    @property
    def room(self) -> bool:
        raise NotImplementedError

    def read_from(self, fd: int, limit: int) -> int:
        raise NotImplementedError

    def when_room(self, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    # -- for readers

    def expect_nobody(self) -> None:
        """The reader who was to come is not coming."""

    def join(self, reader: object, offset: int) -> None:
        """Read from ``offset`` on.

        Raises:
            ValueError: the stream has not come so far.
        """
        if offset > self.ring.end:
            raise ValueError(f"offset {offset} of a stream with {self.ring.end} bytes")
        self._positions[reader] = offset

    def leave(self, reader: object) -> None:
        self._positions.pop(reader, None)

    def take(self, reader: object) -> tuple[int, bytes, int] | None:
        """The reader's next bytes: (offset, data, how many before them are lost); None if there are none."""
        position = self._positions[reader]
        offset = max(position, self.ring.start)
        data = self.ring.read(offset, CHUNK)
        if not data and offset == position:
            return None
        self._positions[reader] = offset + len(data)
        return offset, data, offset - position

    def caught_up(self, reader: object) -> bool:
        return self.ended and self._positions[reader] == self.ring.end


class ExecOutput(Output):
    """Sink of an exec's pump."""

    def __init__(self, loop: Loop, capacity: int) -> None:
        if capacity < 2 * IN_FLIGHT:
            raise ValueError(
                f"a ring of less than {2 * IN_FLIGHT} bytes cannot serve a reader who is cut off"
            )
        super().__init__(Ring(capacity))
        self._loop = loop
        self._expected: int | None = 0  # where the reader who is to come begins
        self._waiters: list[Callable[[], None]] = []

    @property
    def room(self) -> bool:
        floor = min(self._positions.values()) if self._positions else self._expected
        if floor is None:
            return True
        return self.ring.end + CHUNK - max(0, floor - IN_FLIGHT) <= self.ring.capacity

    def read_from(self, fd: int, limit: int) -> int:
        data = os.read(fd, limit)
        self.ring.write(data)
        return len(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        self._waiters.append(callback)

    def leave(self, reader: object) -> None:
        position = self._positions.get(reader)
        super().leave(reader)
        if position is not None:
            self._expected = position
        self._tell()

    def expect_nobody(self) -> None:
        self._expected = None
        self._tell()

    def take(self, reader: object) -> tuple[int, bytes, int] | None:
        taken = super().take(reader)
        if taken is not None:
            self._tell()
        return taken

    def _tell(self) -> None:
        if self._waiters and self.room:
            waiters, self._waiters = self._waiters, []
            for callback in waiters:
                self._loop.soon(callback)


class MainOutput(Output):
    """Sink of the main process's pump: the journal, and a ring from the first reader on."""

    chunk = OUTPUT_PIECE

    def __init__(self, recorder: Recorder, stream: int) -> None:
        super().__init__(Ring(_MAIN_RING))
        self._recorder = recorder
        self._stream = stream
        self._wanted = False

    @property
    def room(self) -> bool:
        return self._recorder.room

    def read_from(self, fd: int, limit: int) -> int:
        if not self._wanted:
            count = self._recorder.output_from(fd, self._stream, limit)
            self.ring.pass_by(count)
            return count
        data = os.read(fd, limit)
        if data:
            self._recorder.output(self._stream, data)
            self.ring.write(data)
        return len(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        self._recorder.when_room(callback)

    def join(self, reader: object, offset: int) -> None:
        super().join(reader, offset)
        self._wanted = True
