"""The last bytes of a stream, by offset from its beginning."""

from __future__ import annotations

__all__ = ["Ring"]

_FIRST = 4096  # bytes to begin with


class Ring:
    """Keeps the newest ``capacity`` bytes of what is written. Memory comes as it is filled."""

    def __init__(self, capacity: int, *, start: int = 0) -> None:
        self.capacity = capacity
        self.end = start  # offset behind the newest byte
        self._first = start
        self._bytes = bytearray()

    @property
    def start(self) -> int:
        """Offset of the oldest byte still here."""
        return max(self._first, self.end - self.capacity)

    def write(self, data: bytes) -> None:
        size = len(data)
        if size > self.capacity:
            data = data[size - self.capacity :]
        self._make_room(min(self.end - self.start + size, self.capacity))
        self.end += size
        size, room = len(data), len(self._bytes)
        at = (self.end - size) % room if room else 0
        head = min(size, room - at)
        self._bytes[at : at + head] = data if head == size else data[:head]
        if head < size:
            self._bytes[: size - head] = data[head:]

    def _make_room(self, needed: int) -> None:
        """Most streams end after a line: a full-sized buffer for each would be a megabyte for nothing."""
        room = len(self._bytes)
        if needed <= room:
            return
        room = min(max(needed, room * 2, _FIRST), self.capacity)
        start = self.start
        held = self.read(start, self.end - start)
        self._bytes = bytearray(room)
        at = start % room
        head = min(len(held), room - at)
        self._bytes[at : at + head] = held[:head]
        self._bytes[: len(held) - head] = held[head:]

    def pass_by(self, size: int) -> None:
        """So many bytes have gone by unkept."""
        self.end += size
        self._first = self.end

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` (between `start` and `end`)."""
        if not self.start <= offset <= self.end:
            raise ValueError(f"offset {offset} outside {self.start}..{self.end}")
        size = min(limit, self.end - offset)
        if size == 0:
            return b""
        room = len(self._bytes)
        at = offset % room
        with memoryview(self._bytes) as view:
            if at + size <= room:
                return bytes(view[at : at + size])
            return b"".join((view[at:], view[: size - (room - at)]))

    def drop(self) -> None:
        """Free the memory: everything so far has left."""
        self._first = self.end
        self._bytes = bytearray()
