"""The guest's journal port: records in order, nothing dropped, nobody blocked.

Life-cycle records are always taken. Output is taken while there is `room`;
its pumps stop reading their pipes otherwise, so that a slow port slows the
workload down instead of losing its words.

Invariant: a record is forgotten only when the port has taken its last byte. An
error of the port (the host's disk is full) is tried again, not passed over.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable

from tether.journal import BODY, OUTPUT_PIECE, JournalWriter, Kind
from tether.loop import Loop

__all__ = ["Recorder"]

_WRITE = 32 * 1024  # a virtio-serial port takes no more at once
_RETRY = 1.0  # seconds after an error of the port


class Recorder:
    def __init__(
        self,
        loop: Loop,
        fd: int,
        *,
        limit: int = 256 * 1024,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Write to ``fd`` (port, raw tty or file; made non-blocking); hold about ``limit`` bytes."""
        self._loop = loop
        self._fd = fd
        self._limit = limit
        self._log = log
        self._writer = JournalWriter()
        self._queue: deque[bytes] = deque()
        self._out = memoryview(b"")
        self._record = bytearray(BODY + OUTPUT_PIECE)  # where output_from makes its own
        self._view = memoryview(self._record)
        self._recorded = 0  # bytes ever made
        self._written = 0  # bytes ever taken by the port
        self._blocked = False  # waiting for the port, or for the next try
        self._room_waiters: list[Callable[[], None]] = []
        self._flush_waiters: deque[tuple[int, Callable[[], None]]] = deque()
        self._failed = False
        os.set_blocking(fd, False)
        try:
            loop.add(fd, select.EPOLLET, self._ready)
        except PermissionError:
            self._watched = False  # a regular file: always ready
        else:
            self._watched = True

    def boot(self, nonce: bytes) -> None:
        """The first record of this boot."""
        self._put(self._writer.boot(nonce))

    def record(self, kind: Kind, body: bytes) -> None:
        """A life-cycle record; ``body`` is the serialized message of its kind (see Kind)."""
        self._put(self._writer.record(kind, body))

    def output(self, stream: int, data: bytes) -> None:
        """Bytes of the main process: ``stream`` is journal.STDOUT or STDERR. Ask `room` first."""
        if len(data) <= OUTPUT_PIECE:
            self._put(self._writer.record(Kind.OUTPUT, data, stream=stream))
            return
        for at in range(0, len(data), OUTPUT_PIECE):
            self._put(self._writer.record(Kind.OUTPUT, data[at : at + OUTPUT_PIECE], stream=stream))

    def output_from(self, fd: int, stream: int, limit: int) -> int:
        """The same by one read of ``fd`` for at most ``limit`` bytes; returns how many it gave.

        They go from pipe to port through one buffer that stays: under TCG a copy,
        and the fresh pages for it, cost more than the rest of a record.
        """
        count = os.readv(fd, [self._view[BODY : BODY + min(limit, OUTPUT_PIECE)]])
        if not count:
            return 0
        self._writer.output_in_place(self._record, count, stream)
        record = self._view[: BODY + count]
        if self._blocked or self._out or self._queue:
            self._put(bytes(record))
            return count
        self._recorded += len(record)
        self._out = record
        self._write()
        if self._out:  # the port is full, and the buffer is wanted again
            self._out = memoryview(bytes(self._out))
        return count

    @property
    def pending(self) -> int:
        """Bytes recorded that the port has not taken yet."""
        return self._recorded - self._written

    @property
    def room(self) -> bool:
        return self.pending < self._limit

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call once as soon as there is room (at once from the loop if there is)."""
        if self.room:
            self._loop.soon(callback)
        else:
            self._room_waiters.append(callback)

    def when_flushed(self, callback: Callable[[], None]) -> None:
        """Call once when everything recorded so far has been handed to the port."""
        if self.pending == 0:
            self._loop.soon(callback)
        else:
            self._flush_waiters.append((self._recorded, callback))

    def close(self) -> None:
        """Let go of the descriptor, which stays the caller's to close."""
        if self._watched:
            self._loop.remove(self._fd)

    def _put(self, record: bytes) -> None:
        self._recorded += len(record)
        self._queue.append(record)
        if not self._blocked:
            self._write()

    def _ready(self, events: int) -> None:
        if self._failed or not events & select.EPOLLOUT:
            return  # the next try has its time
        self._blocked = False
        self._loop.modify(self._fd, select.EPOLLET)
        self._write()

    def _write(self) -> None:
        while True:
            if not self._out:
                if not self._queue:
                    break
                self._out = memoryview(self._next())
            try:
                count = os.write(self._fd, self._out)
            except BlockingIOError:
                self._blocked = True
                self._loop.modify(self._fd, select.EPOLLOUT | select.EPOLLET)
                break
            except OSError as error:
                self._later(error)
                break
            self._out = self._out[count:]
            self._written += count
        self._tell()

    def _next(self) -> bytes:
        """The oldest record, with as many small ones behind it as fit one write."""
        first = self._queue.popleft()
        size = len(first)
        if not self._queue or size + len(self._queue[0]) > _WRITE:
            return first
        parts = [first]
        while self._queue and size + len(self._queue[0]) <= _WRITE:
            part = self._queue.popleft()
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _later(self, error: OSError) -> None:
        if self._log is not None:
            self._log(f"journal: {error}; trying again")
        self._blocked = self._failed = True
        self._loop.after(_RETRY, self._retry)

    def _retry(self) -> None:
        self._blocked = self._failed = False
        self._write()

    def _tell(self) -> None:
        while self._flush_waiters and self._flush_waiters[0][0] <= self._written:
            self._loop.soon(self._flush_waiters.popleft()[1])
        if self._room_waiters and self.room:
            waiters, self._room_waiters = self._room_waiters, []
            for callback in waiters:
                self._loop.soon(callback)
