"""Reads one stream of a process, as fast as its sink takes it and no faster.

A pipe whose sink is full is not read: the kernel then stops the writer. Zero
loss comes from that and nothing else.

The end of a stream: end of file; on a pty EIO, once the process is gone (it
may close its terminal for a moment and open it again). A child left behind can
hold a pipe open for ever, so after the process's end `finish` gives the stream
a short time, then takes what is in the pipe at that moment and closes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import Protocol

from tether.loop import Loop, Timer

__all__ = ["CHUNK", "Pump", "Sink"]

CHUNK = 32 * 1024 - 128  # with every header around it, one 32 KiB write on the way out
_TURNS = 4  # reads before others on the loop get a turn
_LINGER = 2.0  # seconds that a stream may outlive its process without a word
_PTY_RETRY = 0.2
_PIPE_SIZE = 256 * 1024
_F_SETPIPE_SZ = 1031  # linux/fcntl.h
_FIONREAD = 0x541B  # asm-generic/ioctls.h


class Sink(Protocol):
    @property
    def room(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call once when there is room again."""


class Pump:
    def __init__(self, loop: Loop, fd: int, sink: Sink, on_end: Callable[[], None]) -> None:
        """Owns ``fd``. ``on_end`` runs once: every byte has gone to the sink and the descriptor is closed."""
        self._loop = loop
        self._fd = fd
        self._sink = sink
        self._on_end = on_end
        self._watched = False
        self._process_gone = False
        self._rest: int | None = None  # bytes to take before closing, once the linger is over
        self._timer: Timer | None = None
        os.set_blocking(fd, False)
        _widen(fd)
        self._watch()

    def finish(self) -> None:
        """The process has ended: come to an end too."""
        if self._fd < 0 or self._process_gone:
            return
        self._process_gone = True
        if self._timer is not None:  # a pty waiting for its next try
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
        for _turn in range(_TURNS):
            if not self._sink.room:
                self._unwatch()
                self._sink.when_room(self._watch)
                return
            if self._rest == 0:
                self._end()
                return
            try:
                data = os.read(self._fd, CHUNK if self._rest is None else min(CHUNK, self._rest))
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
            if not data:
                self._end()
                return
            if self._rest is not None:
                self._rest -= len(data)
            self._sink.write(data)

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


def _widen(fd: int) -> None:
    """A larger pipe means fewer changes between the workload and us; refusals are fine."""
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        return  # a pty, or a user's pipe budget is used up


def _readable(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), "little")
