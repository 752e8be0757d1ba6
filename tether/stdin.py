"""Feeds a process's standard input, by offset, so that a resent byte is not typed twice."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from tether.loop import Loop

__all__ = ["Stdin"]

_LIMIT = 64 * 1024  # held for a process that does not read


class Stdin:
    """``accepted`` counts the bytes taken over since the process began, from whomever they came.

    They are written to the process, or the process is gone.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fd = -1
        self._terminal = False
        self._open = True  # what is accepted still reaches somebody, perhaps once he has started
        self._buffer = bytearray()
        self._closing = False
        self._watched = False
        self._waiters: list[Callable[[], None]] = []
        self.accepted = 0

    def start(self, fd: int | None, *, terminal: bool) -> None:
        """The process runs; ``fd`` is ours from now on. None: it has no input, everything is swallowed."""
        if fd is None:
            self.close()
            return
        os.set_blocking(fd, False)
        self._fd = fd
        self._terminal = terminal
        self._write()

    @property
    def room(self) -> bool:
        return len(self._buffer) < _LIMIT

    def when_room(self, callback: Callable[[], None]) -> None:
        self._waiters.append(callback)

    def accept(self, offset: int, data: bytes) -> None:
        """Take over what is new of ``data``, which begins at ``offset``.

        Raises:
            ValueError: bytes between `accepted` and ``offset`` are missing.
        """
        if offset > self.accepted:
            raise ValueError(f"input at {offset}, but {self.accepted} is next")
        new = data[self.accepted - offset :]
        self.accepted += len(new)
        if not self._open or (self._closing and not self._terminal) or not new:
            return
        self._buffer += new
        self._write()

    def end(self) -> None:
        """Close behind what has been accepted. A terminal has no end: its input only stops."""
        self._closing = True
        self._write()

    def close(self) -> None:
        """The process is gone, or does not read any more."""
        self._open = False
        self._buffer.clear()
        if self._fd >= 0:
            self._unwatch()
            os.close(self._fd)
            self._fd = -1
        self._tell()

    def _write(self) -> None:
        if self._fd < 0:
            return
        while self._buffer:
            try:
                count = os.write(self._fd, self._buffer)
            except BlockingIOError:
                self._watch()
                return
            except OSError:  # nobody reads any more (EPIPE), the terminal is closed (EIO)
                self.close()
                return
            del self._buffer[:count]
            self._tell()
        self._unwatch()
        if self._closing and not self._terminal:
            self.close()

    def _tell(self) -> None:
        if self._waiters and self.room:
            waiters, self._waiters = self._waiters, []
            for callback in waiters:
                self._loop.soon(callback)

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._loop.add(self._fd, select.EPOLLOUT, lambda _: self._write())

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove(self._fd)
