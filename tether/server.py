"""The guest's end of the channel: calls from the port layer, answered on the loop.

Register handlers by method name, then `serve` a descriptor (a virtio-serial
port, a raw tty, a socket). Nothing here blocks. A handler that raises gives its
caller an ERROR frame; it never ends PID 1:

* `RpcError` → its code and text;
* anything else → INTERNAL, with the exception's type and text.

Calls die with the connection: when the host resets the channel every open
call's ``on_cancel`` runs (with ``call.lost`` true) and its sends go nowhere.

A virtio-serial port reports a hang-up for as long as the host is away, so the
descriptor is watched edge-triggered: it is always read and written until it
would block, and asked about room only after it had none (a port would tell of
every buffer that the host has taken).
"""

from __future__ import annotations

import enum
import os
import select
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from tether.call import Call, Mode, RpcError
from tether.loop import Loop, Timer
from tether.session import (
    CancelReceived,
    DataReceived,
    Event,
    RequestReceived,
    Role,
    Session,
    SessionFailed,
    SessionStarted,
)
from tether.wire import Code

__all__ = ["Call", "RpcError", "Server"]

M = TypeVar("M", bound=Message)

# A virtio-serial port gives at most one of its buffers, a page, for each buffer of ours.
_PAGE = 4096
_PAGES = 16
_TURNS = 8  # reads or writes before others on the loop get a turn
_BACKLOG = 4 << 20  # answers the host has not read: read no more questions meanwhile
_ABSENT = 30.0  # seconds a host may be away before its calls are given up


class _Host(enum.Enum):
    PRESENT = "present"
    ABSENT = "absent"  # hung up; its calls wait a little for what it does next


class Server:
    def __init__(self, loop: Loop, *, log: Callable[[str], None]) -> None:
        self._loop = loop
        self._log = log
        self._session = Session(Role.GUEST)
        self._handlers: dict[str, tuple[Mode, type[Message], Callable[..., Any]]] = {}
        self._calls: dict[int, Call] = {}
        self._fd = -1
        self._out = memoryview(b"")  # pulled from the session, not taken by the descriptor
        self._full = False  # the descriptor takes no more
        self._in = memoryview(bytearray(_PAGES * _PAGE))
        self._pages = [self._in[at : at + _PAGE] for at in range(0, len(self._in), _PAGE)]
        self._stalled = False  # not reading because of _BACKLOG
        self._flush_timer: Timer | None = None
        self._host = _Host.PRESENT
        self._absence: Timer | None = None

    def unary(self, method: str, request: type[M], handler: Callable[[M], Message]) -> None:
        """``handler(request)`` returns the reply."""
        self._register(method, Mode.UNARY, request, handler)

    def deferred(self, method: str, request: type[M], handler: Callable[[M, Call], None]) -> None:
        """``handler(request, call)`` keeps the call and answers later with one ``call.respond(reply)``.

        Also for calls with a stream of data from the host and one reply (CopyIn).
        """
        self._register(method, Mode.DEFERRED, request, handler)

    def streaming(self, method: str, request: type[M], handler: Callable[[M, Call], None]) -> None:
        """``handler(request, call)`` keeps the call, sends data, and ends it with ``end=True``."""
        self._register(method, Mode.STREAMING, request, handler)

    def _register(self, method: str, mode: Mode, request: type[Message], handler: Callable[..., Any]) -> None:
        if method in self._handlers:
            raise ValueError(f"{method} has a handler")
        self._handlers[method] = (mode, request, handler)

    # ------------------------------------------------------------ descriptor

    def serve(self, fd: int) -> None:
        """Talk on ``fd`` from now on (made non-blocking). The descriptor stays the caller's to close."""
        if self._fd >= 0:
            raise ValueError("serving already")
        os.set_blocking(fd, False)
        if os.isatty(fd):
            _make_raw(fd)
        self._fd = fd
        self._full = False
        self._loop.add(fd, select.EPOLLIN | select.EPOLLET, self._ready)

    def close(self) -> None:
        """Let go of the descriptor; open calls are lost."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            self._fd = -1
        for timer in (self._absence, self._flush_timer):
            if timer is not None:
                timer.cancel()
        self._session.abandon()
        self._lose_calls()

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read()
        if self._full and events & select.EPOLLOUT:
            self._full = False
            self._loop.modify(self._fd, select.EPOLLIN | select.EPOLLET)
        self._flush()

    def _read(self) -> None:
        for _ in range(_TURNS):
            if self._fd < 0:
                return
            if self._session.backlog > _BACKLOG:
                self._stalled = True
                return
            try:
                count = os.readv(self._fd, self._pages)
            except BlockingIOError:
                return
            except OSError as error:
                self._hung_up(str(error))
                return
            if not count:
                self._hung_up("end of stream")
                return
            self._came_back()
            for event in self._session.receive(bytes(self._in[:count])):
                self._dispatch(event)
        self._loop.soon(self._read_on)

    def _read_on(self) -> None:
        self._read()
        self._flush()

    def _flush(self) -> None:
        """Write until there is nothing to say or the descriptor takes no more."""
        self._flush_timer = None
        for _ in range(_TURNS):
            if self._fd < 0 or self._full:
                return
            if not self._out:
                self._out = memoryview(self._session.pull())
                self._tell_drained()
                if not self._out:
                    break
            try:
                written = os.write(self._fd, self._out)
            except BlockingIOError:
                self._full = True
                self._loop.modify(self._fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
                return
            except OSError as error:
                self._hung_up(str(error))
                return
            self._out = self._out[written:]
        else:
            self.schedule()
        if self._stalled and self._session.backlog <= _BACKLOG:
            self._stalled = False
            self._loop.soon(self._read_on)

    def schedule(self) -> None:
        """A call has said something: flush soon."""
        if self._flush_timer is None:
            self._flush_timer = self._loop.soon(self._flush)

    def _tell_drained(self) -> None:
        for stream in self._session.take_drained():
            call = self._calls.get(stream)
            if call is None:
                continue
            if not self._session.is_open(stream):
                del self._calls[stream]  # its end has gone out
            elif call.writable is not None:
                self._guard(call, call.writable)

    def _hung_up(self, reason: str) -> None:
        if self._host is _Host.ABSENT:
            return
        self._host = _Host.ABSENT
        if self._calls:
            self._log(f"channel: the host is away ({reason})")
        self._absence = self._loop.after(_ABSENT, self._give_up)

    def _came_back(self) -> None:
        if self._host is _Host.ABSENT:
            self._host = _Host.PRESENT
            if self._absence is not None:
                self._absence.cancel()

    def _give_up(self) -> None:
        if self._calls:
            self._log(f"channel: {len(self._calls)} calls given up")
        self._out = memoryview(b"")
        self._session.abandon()
        self._lose_calls()

    # ------------------------------------------------------------ calls

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            call = self._calls.get(event.stream)
            if call is not None:
                self._guard(call, call.receive, event.body, event.end)
        elif isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, CancelReceived):
            call = self._calls.pop(event.stream, None)
            if call is not None:
                self._end(call, lost=False)
        elif isinstance(event, SessionStarted):
            self._out = memoryview(b"")  # the padding that follows makes up for a frame cut here
            self._lose_calls()
        elif isinstance(event, SessionFailed):
            self._log(f"channel: the host broke the protocol: {event.error}")
            self._lose_calls()

    def _request(self, event: RequestReceived) -> None:
        mode, kind, handler = self._handlers.get(event.method, (Mode.UNARY, Message, _unimplemented))
        call = Call(self, self._session, event.stream, event.method, mode)
        self._calls[event.stream] = call
        if handler is _unimplemented:
            call.fail(Code.UNIMPLEMENTED, f"this tether has no {event.method}")
            return
        request = kind()
        try:
            request.ParseFromString(event.body)
        except DecodeError as error:
            call.fail(Code.INVALID_ARGUMENT, f"{event.method}: {error}")
            return
        if mode is Mode.UNARY:
            self._guard(call, lambda: call.respond(handler(request)))
        else:
            self._guard(call, handler, request, call)

    def _guard(self, call: Call, callback: Callable[..., Any], *arguments: Any) -> None:
        """Run a handler's code; what it raises goes to its caller."""
        try:
            callback(*arguments)
        except RpcError as error:
            self._refuse(call, error.code, error.text)
        except Exception as error:  # a handler must not take PID 1 down
            text = f"{type(error).__name__}: {error}"
            self._log(f"channel: {call.method}: {text} ({_origin(error)})")
            self._refuse(call, Code.INTERNAL, text)

    def _refuse(self, call: Call, code: Code, text: str) -> None:
        callback, call.cancelled = call.cancelled, None
        call.fail(code, text)
        if callback is not None:
            self._guard(call, callback)

    def forget(self, stream: int) -> None:
        """A call has ended at this side."""
        self._calls.pop(stream, None)
        self.schedule()

    def _lose_calls(self) -> None:
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            self._end(call, lost=True)

    def _end(self, call: Call, *, lost: bool) -> None:
        callback = call.close(lost=lost)
        if callback is not None:
            self._guard(call, callback)


def _unimplemented() -> None:
    """Stands for the handler of a method nobody has registered."""


def _origin(error: BaseException) -> str:
    """Where it was raised. (The traceback module would cost its import.)"""
    trace = error.__traceback__
    if trace is None:
        return "nowhere"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _make_raw(fd: int) -> None:
    """A serial line must hand on every byte as it is, both ways."""
    import termios  # only machines whose channel is a serial line pay for it
    import tty

    tty.setraw(fd, termios.TCSANOW)
