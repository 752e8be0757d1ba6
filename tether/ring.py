"""The last bytes of a stream, by offset from its beginning."""

from __future__ import annotations

__all__ = ["Ring"]


class Ring:
    """Keeps the newest ``capacity`` bytes of what is written. Memory comes with the first byte."""

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
        self.end += size
        if size > self.capacity:
            data = data[size - self.capacity :]
            size = self.capacity
        if not self._bytes:
            self._bytes = bytearray(self.capacity)
        at = (self.end - size) % self.capacity
        head = min(size, self.capacity - at)
        self._bytes[at : at + head] = data if head == size else data[:head]
        if head < size:
            self._bytes[: size - head] = data[head:]

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
        at = offset % self.capacity
        with memoryview(self._bytes) as view:
            if at + size <= self.capacity:
                return bytes(view[at : at + size])
            return b"".join((view[at:], view[: size - (self.capacity - at)]))

    def drop(self) -> None:
        """Free the memory: everything so far has left."""
        self._first = self.end
        self._bytes = bytearray()
