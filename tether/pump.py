"""Reads one stream of a process, as fast as its sink takes it and no faster.

A pipe whose sink is full is not read: the kernel then stops the writer. Zero
loss comes from that and nothing else.

The end of a stream: end of file; on a pty EIO, once the process is gone (it
may close its terminal for a moment and open it again). A child left behind can
hold a pipe open for ever, so after the process's end `finish` gives the stream
a short time, then takes what is in the pipe at that moment and closes it.

Each piece taken costs PID 1 the same 0.3 ms (TCG), however small. A process that
talks in small pieces and to nobody who could answer is heard a few milliseconds
late, so that its words make one piece.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import Protocol

from tether.loop import Loop, Timer

__all__ = ["CHUNK", "Pump", "Sink", "widen"]

CHUNK = 32 * 1024 - 128  # what a sink for the channel reads: with every header, one 32 KiB write on its way
_TURNS = 4  # reads before others on the loop get a turn: 5 ms under TCG
_LINGER = 2.0  # seconds that a stream may outlive its process without a word
_PTY_RETRY = 0.2
_SMALL = 32 * 1024  # bytes that are worth waiting for company
_PIPE_SIZE = 1 << 20  # the most that the kernel gives by default
_F_SETPIPE_SZ = 1031  # linux/fcntl.h
_FIONREAD = 0x541B  # asm-generic/ioctls.h


class Sink(Protocol):
    chunk: int  # the most that one `read_from` takes

    @property
    def room(self) -> bool: ...

    def read_from(self, fd: int, limit: int) -> int:
        """Take at most ``limit`` bytes by one read of ``fd``, to where they are wanted; 0 is the end."""

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call once when there is room again."""


class Pump:
    def __init__(
        self, loop: Loop, fd: int, sink: Sink, on_end: Callable[[], None], *, gather: float = 0
    ) -> None:
        """Owns ``fd``. ``on_end`` runs once: every byte has gone to the sink and the descriptor is closed.

        ``gather``: seconds that what follows a small piece may have to wait, while the process lives.
        """
        self._loop = loop
        self._fd = fd
        self._sink = sink
        self._on_end = on_end
        self._gather = gather
        self._watched = False
        self._process_gone = False
        self._rest: int | None = None  # bytes to take before closing, once the linger is over
        self._timer: Timer | None = None
        os.set_blocking(fd, False)
        widen(fd)
        self._watch()

    def finish(self) -> None:
        """The process has ended: come to an end too."""
        if self._fd < 0 or self._process_gone:
            return
        self._process_gone = True
        if self._timer is not None:  # a pty waiting for its next try, or a gathering
            self._timer.cancel()
            self._watch()
        self._timer = self._loop.after(_LINGER, self._linger_over)

    def close(self) -> None:
        """Stop reading, whatever is left."""
        if self._fd < 0:
            return
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        os.close(self._fd)
        self._fd = -1

    def _watch(self) -> None:
        if not self._watched and self._fd >= 0:
            self._watched = True
            self._loop.add(self._fd, select.EPOLLIN, self._ready)

    def _unwatch(self) -> None:
        # Not modify(fd, 0): the hang-up of an ended process would still be reported, without end.
        if self._watched:
            self._watched = False
            self._loop.remove(self._fd)

    def _ready(self, _: int) -> None:
        for turn in range(_TURNS):
            limit = self._sink.chunk if self._rest is None else min(self._sink.chunk, self._rest)
            if not self._sink.room:
                self._unwatch()
                self._sink.when_room(self._watch)
                return
            if self._rest == 0:
                self._end()
                return
            try:
                count = self._sink.read_from(self._fd, limit)
            except BlockingIOError:
                if self._rest is not None:
                    self._end()
                return
            except OSError as error:
                if error.errno == errno.EIO:
                    self._terminal_closed()
                    return
                self._end()  # it would fail again and again
                raise
            if not count:
                self._end()
                return
            if self._rest is not None:
                self._rest -= count
            elif count < limit:  # that was all; asking would cost an exception
                if self._gather and turn == 0 and count < _SMALL and not self._process_gone:
                    self._unwatch()
                    self._timer = self._loop.after(self._gather, self._watch)
                return

    def _terminal_closed(self) -> None:
        if self._process_gone:
            self._end()
            return
        self._unwatch()
        self._timer = self._loop.after(_PTY_RETRY, self._watch)

    def _linger_over(self) -> None:
        self._timer = None
        self._rest = _readable(self._fd)
        if self._rest == 0:
            self._end()
        # Otherwise: the descriptor is readable, or the sink will call when it has room.

    def _end(self) -> None:
        self.close()
        self._on_end()


def widen(fd: int) -> None:
    """A larger pipe means fewer changes between a process and us; refusals are fine."""
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        return  # a pty, or a user's pipe budget is used up


def _readable(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), "little")
