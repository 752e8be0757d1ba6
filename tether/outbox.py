"""What a session has to send, in the order in which it may go.

Control frames first. Then data: streams that have some and have credit for it
stand in a line; the first sends one frame and goes to the end. Nothing here is
promised to be sent before it is pulled, so a signal overtakes a gigabyte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tether.wire import END, HEADER_SIZE, MAX_BODY, PIECE, Type, encode

__all__ = ["QUEUE", "WINDOW", "Outbox"]

WINDOW = 256 * 1024  # credit of each half at the start
QUEUE = 128 * 1024  # bytes a sender may queue on a stream before it should wait
_LOW = QUEUE // 2


class _Lane:
    __slots__ = ("credit", "ending", "in_line", "queue", "queued")

    def __init__(self) -> None:
        self.credit = WINDOW
        self.queue: deque[tuple[bytes | memoryview, bool]] = deque()  # body, is it the last
        self.queued = 0
        self.ending = False  # the last frame is queued or sent
        self.in_line = False

    @property
    def sendable(self) -> bool:
        return bool(self.queue) and len(self.queue[0][0]) <= self.credit


class Outbox:
    def __init__(self, on_sent: Callable[[int, bool], None]) -> None:
        """``on_sent(stream, last)`` is told each data frame as it is pulled; it may close the stream."""
        self._on_sent = on_sent
        self._control: deque[bytes] = deque()
        self._lanes: dict[int, _Lane] = {}
        self._line: deque[int] = deque()
        self._drained: dict[int, None] = {}
        self.backlog = 0  # bytes of queued control frames

    def clear(self) -> None:
        self.clear_control()
        self._lanes.clear()
        self._line.clear()
        self._drained.clear()

    def clear_control(self) -> None:
        self._control.clear()
        self.backlog = 0

    def put(self, frame: bytes) -> None:
        """Queue a control frame."""
        self._control.append(frame)
        self.backlog += len(frame)

    def open(self, stream: int) -> None:
        self._lanes[stream] = _Lane()

    def close(self, stream: int) -> None:
        """Drop what the stream has queued."""
        self._lanes.pop(stream, None)

    def ending(self, stream: int) -> bool:
        return self._lanes[stream].ending

    def queued(self, stream: int) -> int:
        lane = self._lanes.get(stream)
        return lane.queued if lane else 0

    def queue(self, stream: int, data: bytes, *, end: bool) -> None:
        """Queue data: one frame if it fits one, however little credit there is."""
        lane = self._lanes[stream]
        size = len(data)
        if size <= MAX_BODY:
            if size or end:
                lane.queue.append((data, end))
        else:
            view = memoryview(data)
            for at in range(0, size, PIECE):
                lane.queue.append((view[at : at + PIECE], end and at + PIECE >= size))
        lane.queued += size
        lane.ending = end
        self._line_up(stream, lane)

    def grant(self, stream: int, credit: int) -> int:
        """The peer has room for more; returns how much in all."""
        lane = self._lanes[stream]
        lane.credit += credit
        self._line_up(stream, lane)
        return lane.credit

    def take_drained(self) -> list[int]:
        """Streams whose queue `pull` has made short, or whose last frame it took, since asked last."""
        drained = list(self._drained)
        self._drained.clear()
        return drained

    def pull(self, limit: int) -> bytes:
        """The next whole frames, about ``limit`` bytes; b"" if there is nothing to say."""
        parts: list[bytes] = []
        size = 0
        while self._control:
            if parts and size + len(self._control[0]) > limit:
                return b"".join(parts)
            part = self._control.popleft()
            self.backlog -= len(part)
            parts.append(part)
            size += len(part)
        while self._line:
            stream = self._line[0]
            lane = self._lanes.get(stream)
            if lane is None or not lane.sendable:
                self._line.popleft()
                if lane is not None:
                    lane.in_line = False
                continue
            if parts and size + HEADER_SIZE + len(lane.queue[0][0]) > limit:
                break
            part = self._next_data(stream, lane)
            parts.append(part)
            size += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_data(self, stream: int, lane: _Lane) -> bytes:
        body, last = lane.queue.popleft()
        lane.queued -= len(body)
        lane.credit -= len(body)
        self._line.rotate(-1)
        if lane.queued <= _LOW:
            self._drained[stream] = None
        self._on_sent(stream, last)
        return encode(Type.DATA, body, stream=stream, flags=END if last else 0)

    def _line_up(self, stream: int, lane: _Lane) -> None:
        if not lane.in_line and lane.sendable:
            lane.in_line = True
            self._line.append(stream)
