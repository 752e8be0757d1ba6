"""A unix socket in the container whose connections lead to the engine, over the channel.

The host asks for connections: each ``Accept`` call waits for one and then is it.
Frames to the host are ``RelayData`` (a connection has two halves that end alone,
a call's end is the whole call's); to the guest they are raw, and the host's end
is its half's. Both directions are bounded by the channel's credit.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tether.call import Call
from tether.loop import Loop
from tether.tether_pb2 import Empty, RelayData

__all__ = ["PATH", "Relay"]

PATH = "/run/mooring/engine.sock"
_BACKLOG = 64
_PIECE = 16 * 1024
T = TypeVar("T")


class Relay:
    def __init__(self, loop: Loop, *, path: str = PATH) -> None:
        self._loop = loop
        self._waiting: deque[Call] = deque()
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(path)
        os.chmod(path, 0o660)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        loop.add(self._listener.fileno(), 0, lambda _: self._accept())

    def accept(self, _: Empty, call: Call) -> None:
        """``Accept``: the next connection is this call's."""
        self._waiting.append(call)
        call.on_cancel(lambda: self._waiting.remove(call))
        self._watch()

    def _accept(self) -> None:
        while self._waiting:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            _Connection(self._loop, connection, self._waiting.popleft())
        self._watch()

    def _watch(self) -> None:
        self._loop.modify(self._listener.fileno(), select.EPOLLIN if self._waiting else 0)


class _Connection:
    def __init__(self, loop: Loop, connection: socket.socket, call: Call) -> None:
        self._loop = loop
        self._socket = connection
        self._call = call
        self._pending = bytearray()  # from the host, as much as it has credit for
        self._reading = self._writing = True  # halves that have not ended
        connection.setblocking(False)
        loop.add(connection.fileno(), select.EPOLLIN, self._ready)
        call.on_cancel(self._close)
        call.on_writable(self._watch)
        call.respond(Empty())
        call.on_data(self._take, manual_credit=True)

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and self._reading:
            self._read()
        if events & select.EPOLLOUT:
            self._flush()
        self._watch()

    def _read(self) -> None:
        if self._call.room <= 0:
            return
        data = self._attempt(lambda: self._socket.recv(_PIECE))
        if data is None:
            return
        self._reading = bool(data)
        self._call.send_message(RelayData(data=data, end=not data))
        self._end_if_over()

    def _take(self, data: bytes, end: bool) -> None:
        self._pending += data
        self._writing = self._writing and not end
        self._flush()
        self._watch()

    def _flush(self) -> None:
        while self._pending:
            count = self._attempt(lambda: self._socket.send(self._pending[:_PIECE]))
            if count is None:
                return
            del self._pending[:count]
            self._call.consume(count)
        if not self._writing:
            with contextlib.suppress(OSError):  # the other side has closed already
                self._socket.shutdown(socket.SHUT_WR)
            self._end_if_over()

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """None: not now; or the peer has gone, and with it everything."""
        try:
            return step()
        except BlockingIOError:
            return None
        except OSError:
            self._call.send(end=True)
            self._close()
            return None

    def _end_if_over(self) -> None:
        if not (self._reading or self._writing or self._pending):
            self._call.send(end=True)
            self._close()

    def _watch(self) -> None:
        if self._socket.fileno() < 0:
            return
        wanted = select.EPOLLIN if self._reading and self._call.room > 0 else 0
        self._loop.modify(self._socket.fileno(), wanted | (select.EPOLLOUT if self._pending else 0))

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
        self._pending.clear()
