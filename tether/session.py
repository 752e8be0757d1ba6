"""One session on the channel, either end: streams, credit, order of sending. Bytes in, events out, no I/O.

A session begins with a reset. The host sends padding and RESET with a nonce
until the guest answers with the same; each side forgets everything older. From
then on the host opens calls (tether/callstate.py) and both send frames.

What is guaranteed:

* Control frames overtake queued data; data of different streams takes turns.
* Data is sent only against credit, and a frame is never split for want of it:
  one `send` of up to MAX_BODY bytes arrives as one DataReceived.
* A peer that breaks a rule ends the session (`SessionFailed`), nothing more. What
  it can make us hold is bounded: WINDOW bytes per stream, one unfinished message,
  and `backlog`, which the owner watches.

Invariant: standard library only, as in tether/wire.py. The host shares this module.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from typing import NamedTuple, TypeAlias

from tether.callstate import (
    Act,
    LocalProtocolError,
    Phase,
    ProtocolError,
    RemoteProtocolError,
    advance,
)
from tether.wire import END, HEADER_SIZE, MAX_BODY, MORE, PADDING, PIECE, Code, Decoder, Frame, Type, encode

__all__ = [
    "MAX_MESSAGE",
    "MAX_STREAMS",
    "QUEUE",
    "WINDOW",
    "CancelReceived",
    "DataReceived",
    "ErrorReceived",
    "Event",
    "LocalProtocolError",
    "PongReceived",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestReceived",
    "ResponseReceived",
    "Role",
    "Session",
    "SessionFailed",
    "SessionStarted",
    "State",
]

WINDOW = 256 * 1024  # credit of each half at the start
MAX_MESSAGE = 1 << 20  # a REQUEST or RESPONSE with all its continuations
MAX_STREAMS = 1024  # open at once
QUEUE = 128 * 1024  # bytes a sender may queue on a stream before it should wait
_LOW = QUEUE // 2
_GRANT = WINDOW // 4  # consumed bytes worth a CREDIT frame
_MAX_CREDIT = 1 << 31
_PONG_LIMIT = 64 * 1024  # a peer that does not read gets no more answers to its pings
_MAX_TEXT = 16 * 1024

_U32 = struct.Struct("<I")
_U16 = struct.Struct("<H")


class Role(enum.Enum):
    HOST = "host"
    GUEST = "guest"


class State(enum.Enum):
    WAITING = "waiting for a reset"  # guest: for the host's; host: for the answer
    OPEN = "open"
    FAILED = "failed"  # host only: start over on a new connection


class SessionStarted(NamedTuple):
    """Both sides have reset; every stream of before is gone."""


class SessionFailed(NamedTuple):
    """The peer broke the protocol; every stream is gone. The guest waits for a reset."""

    error: RemoteProtocolError


class RequestReceived(NamedTuple):
    stream: int
    method: str
    body: bytes


class ResponseReceived(NamedTuple):
    stream: int
    body: bytes
    end: bool


class ErrorReceived(NamedTuple):
    stream: int
    code: int
    message: str


class DataReceived(NamedTuple):
    stream: int
    body: bytes
    end: bool


class CancelReceived(NamedTuple):
    stream: int


class PongReceived(NamedTuple):
    body: bytes


Event: TypeAlias = (
    SessionStarted
    | SessionFailed
    | RequestReceived
    | ResponseReceived
    | ErrorReceived
    | DataReceived
    | CancelReceived
    | PongReceived
)


class _Stream:
    __slots__ = ("consumed", "credit", "ending", "granted", "phase", "queue", "queued", "waiting")

    def __init__(self) -> None:
        self.phase = Phase.ASKED
        self.credit = WINDOW  # we may send
        self.granted = WINDOW  # the peer may send
        self.consumed = 0  # of what it sent, not granted anew yet
        self.queue: deque[tuple[bytes | memoryview, bool]] = deque()  # body, is it the last
        self.queued = 0
        self.ending = False  # our END is queued or sent
        self.waiting = False  # in the session's line of streams that can send


class Session:
    def __init__(self, role: Role) -> None:
        self.state = State.WAITING
        self._host = role is Role.HOST
        self._decoder = Decoder()
        self._nonce = b""
        self._streams: dict[int, _Stream] = {}
        self._last = -1 if self._host else 0  # the newest stream
        self._control: deque[bytes] = deque()
        self._line: deque[int] = deque()  # streams with data and credit, in turn
        self._drained: dict[int, None] = {}
        self._partial: tuple[int, int, bytearray] | None = None  # type, stream, message so far
        self._stale = 0  # bytes that may still arrive on streams we closed
        self.backlog = 0  # bytes of queued control frames
        self.frames = 0  # good frames received

    @property
    def noise(self) -> int:
        """Bytes received that belonged to no good frame."""
        return self._decoder.noise

    # ------------------------------------------------------------ sending

    def reset(self, nonce: bytes) -> None:
        """Host: ask for a session. Call again with the same nonce while no answer comes."""
        if not self._host or self.state is not State.WAITING:
            raise LocalProtocolError("only a host without a session resets")
        self._nonce = nonce
        self._put(PADDING)
        self._put(encode(Type.RESET, nonce))

    def open(self, method: str, body: bytes) -> int:
        """Host: send a REQUEST; returns its stream."""
        if not self._host or self.state is not State.OPEN:
            raise LocalProtocolError("only a host with a session opens calls")
        if len(self._streams) >= MAX_STREAMS:
            raise LocalProtocolError(f"{MAX_STREAMS} calls are open already")
        name = method.encode()
        self._put_message(Type.REQUEST, self._last + 2, bytes((len(name),)) + name + body)
        self._last += 2
        self._streams[self._last] = _Stream()
        return self._last

    def respond(self, stream: int, body: bytes, *, end: bool) -> None:
        """Guest: the first answer; with ``end`` also the last word."""
        known = self._own(stream)
        if known.ending or known.queue:
            raise LocalProtocolError("an answer behind data")
        phase = advance(known.phase, Act.RESPOND, LocalProtocolError)
        self._put_message(Type.RESPONSE, stream, body, flags=END if end else 0)
        known.phase = phase
        if end:
            self._close(stream)

    def fail(self, stream: int, code: int, text: str) -> None:
        """Guest: end the call with an error; data not sent yet is dropped."""
        self._own(stream)
        self._put(encode(Type.ERROR, _U16.pack(code) + text.encode()[:_MAX_TEXT], stream=stream))
        self._close(stream)

    def cancel(self, stream: int) -> None:
        """Host: no longer interested. What the guest has sent meanwhile is ignored."""
        known = self._own(stream)
        self._stale += known.granted + MAX_MESSAGE
        self._put(encode(Type.CANCEL, stream=stream))
        self._close(stream)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Queue data; `pull` sends it as credit allows. With ``end`` our half ends behind it."""
        known = self._own(stream)
        if known.ending or (self._host and not known.phase.host_may_send):
            raise LocalProtocolError("data behind the end")
        size = len(data)
        if size <= MAX_BODY:
            if size or end:
                known.queue.append((data, end))
        else:
            view = memoryview(data)
            for at in range(0, size, PIECE):
                known.queue.append((view[at : at + PIECE], end and at + PIECE >= size))
        known.queued += size
        known.ending = end
        self._line_up(stream, known)

    def consume(self, stream: int, count: int) -> None:
        """So many received bytes are off our hands: the peer may send as many more. Fine after the end."""
        known = self._streams.get(stream)
        if known is None or not (self._host or known.phase.host_may_send):
            return
        known.consumed += count
        if known.consumed >= _GRANT:
            self._put(encode(Type.CREDIT, _U32.pack(known.consumed), stream=stream))
            known.granted += known.consumed
            known.consumed = 0

    def ping(self, body: bytes) -> None:
        self._put(encode(Type.PING, body))

    def queued(self, stream: int) -> int:
        """Bytes of data waiting to be sent on a stream."""
        known = self._streams.get(stream)
        return known.queued if known else 0

    def is_open(self, stream: int) -> bool:
        return stream in self._streams

    def take_drained(self) -> list[int]:
        """Streams whose queue `pull` has made short, or whose last frame it took, since asked last."""
        drained = list(self._drained)
        self._drained.clear()
        return drained

    def pull(self, limit: int = MAX_BODY) -> bytes:
        """The next bytes to send: whole frames, about ``limit`` bytes, b"" if there is nothing to say.

        What has been pulled can no longer be overtaken, so pull little at a time.
        """
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
            known = self._streams.get(stream)
            if known is None or not known.queue or len(known.queue[0][0]) > known.credit:
                self._line.popleft()
                if known is not None:
                    known.waiting = False
                continue
            if parts and size + HEADER_SIZE + len(known.queue[0][0]) > limit:
                break
            part = self._next_data(stream, known)
            parts.append(part)
            size += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _next_data(self, stream: int, known: _Stream) -> bytes:
        """Take one frame from the stream at the head of the line and move that to the end."""
        body, last = known.queue.popleft()
        known.queued -= len(body)
        known.credit -= len(body)
        self._line.popleft()
        if known.queue:
            self._line.append(stream)
        else:
            known.waiting = False
        if known.queued <= _LOW:
            self._drained[stream] = None
        if self._host:
            act = Act.HOST_END if last else Act.HOST_DATA
        else:
            act = Act.FINISH if last else Act.GUEST_DATA
        known.phase = advance(known.phase, act, LocalProtocolError)
        if known.phase is Phase.CLOSED:
            self._close(stream)
        return encode(Type.DATA, body, stream=stream, flags=END if last else 0)

    def _own(self, stream: int) -> _Stream:
        try:
            return self._streams[stream]
        except KeyError:
            raise LocalProtocolError(f"no open call {stream}") from None

    def _put(self, frame: bytes) -> None:
        self._control.append(frame)
        self.backlog += len(frame)

    def _put_message(self, type: Type, stream: int, body: bytes, *, flags: int = 0) -> None:
        if len(body) > MAX_MESSAGE:
            raise LocalProtocolError(f"a message of {len(body)} bytes; the most is {MAX_MESSAGE}")
        at = 0
        while len(body) - at > MAX_BODY:
            self._put(encode(type, body[at : at + PIECE], stream=stream, flags=MORE))
            at += PIECE
        self._put(encode(type, body[at:] if at else body, stream=stream, flags=flags))

    def _line_up(self, stream: int, known: _Stream) -> None:
        if known.queue and not known.waiting and len(known.queue[0][0]) <= known.credit:
            known.waiting = True
            self._line.append(stream)

    def _close(self, stream: int) -> None:
        del self._streams[stream]

    def _forget(self) -> None:
        self._streams.clear()
        self._control.clear()
        self._line.clear()
        self._drained.clear()
        self._partial = None
        self._stale = 0
        self.backlog = 0

    # ------------------------------------------------------------ receiving

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, however they are cut; returns what they mean, in order."""
        events: list[Event] = []
        for frame in self._decoder.feed(data):
            self.frames += 1
            try:
                event = self._frame(frame)
            except RemoteProtocolError as error:
                self.abandon()
                event = SessionFailed(error)
            if event is not None:
                events.append(event)
        return events

    def abandon(self) -> None:
        """Give the session up: the host needs a new connection, the guest a reset."""
        self._forget()
        self.state = State.FAILED if self._host else State.WAITING

    def _frame(self, frame: Frame) -> Event | None:
        type, flags, stream, body = frame
        if type == Type.RESET:
            return self._reset(body)
        if self.state is not State.OPEN:
            return None  # from before the reset
        if type == Type.DATA:
            return self._data(stream, body, bool(flags & END))
        if type == Type.CREDIT:
            self._credit(stream, body)
            return None
        if type == Type.PING:
            if self.backlog <= _PONG_LIMIT:
                self._put(encode(Type.PONG, body[:8]))
            return None
        if type == Type.PONG:
            return PongReceived(body)
        if self._host and type == Type.RESPONSE:
            return self._response(stream, flags, body)
        if self._host and type == Type.ERROR:
            return self._error(stream, body)
        if not self._host and type == Type.REQUEST:
            return self._request(stream, flags, body)
        if not self._host and type == Type.CANCEL:
            known = self._find(stream, 0)
            if known is None:
                return None
            self._close(stream)
            return CancelReceived(stream)
        raise RemoteProtocolError(f"a frame of type {type} on stream {stream}")

    def _reset(self, nonce: bytes) -> Event | None:
        if self._host:
            if self.state is State.WAITING and nonce == self._nonce:
                self._control.clear()  # repetitions that have not gone out
                self.backlog = 0
                self.state = State.OPEN
                return SessionStarted()
            if self.state is State.OPEN and nonce != self._nonce:
                raise RemoteProtocolError("a reset that we did not ask for")
            return None  # the answer to a repetition
        if len(nonce) != 16:
            raise RemoteProtocolError("a reset without a nonce")
        self._forget()
        self._last = 0
        self._put(PADDING)
        self._put(encode(Type.RESET, nonce))
        self.state = State.OPEN
        return SessionStarted()

    def _find(self, stream: int, size: int) -> _Stream | None:
        """The open stream a frame with ``size`` bytes of body is for; None if it came too late for it."""
        known = self._streams.get(stream)
        if known is not None:
            return known
        if not stream & 1 or stream > self._last:
            raise RemoteProtocolError(f"a frame on stream {stream}, which was never opened")
        if self._host:
            # Only what was on its way when we cancelled; the guest ends streams itself otherwise.
            self._stale -= size
            if self._stale < 0:
                raise RemoteProtocolError(f"goes on sending on stream {stream}, which has ended")
        return None

    def _data(self, stream: int, body: bytes, end: bool) -> Event | None:
        size = len(body)
        known = self._find(stream, size)
        if known is None:
            return None
        if size > known.granted:
            raise RemoteProtocolError(f"{size} bytes on stream {stream} with {known.granted} of credit left")
        if self._host:
            act = Act.FINISH if end else Act.GUEST_DATA
        else:
            act = Act.HOST_END if end else Act.HOST_DATA
        known.phase = advance(known.phase, act, RemoteProtocolError)
        known.granted -= size
        if known.phase is Phase.CLOSED:
            self._close(stream)
        if not size and not end:
            return None
        return DataReceived(stream, body, end)

    def _credit(self, stream: int, body: bytes) -> None:
        if len(body) != _U32.size:
            raise RemoteProtocolError("credit of another size than 4 bytes")
        # On a stream that has ended: it crossed the end on its way.
        known = self._streams.get(stream) if stream <= self._last else self._find(stream, 0)
        if known is None:
            return
        known.credit += _U32.unpack(body)[0]
        if known.credit > _MAX_CREDIT:
            raise RemoteProtocolError(f"credit without end on stream {stream}")
        self._line_up(stream, known)

    def _message(self, type: Type, stream: int, flags: int, body: bytes) -> bytes | None:
        """Join continued messages; None while there is more to come."""
        if self._partial is not None:
            kind, owner, message = self._partial
            if (kind, owner) != (type, stream):
                raise RemoteProtocolError(f"a message on stream {stream} inside one on stream {owner}")
            if len(message) + len(body) > MAX_MESSAGE:
                raise RemoteProtocolError(f"a message of more than {MAX_MESSAGE} bytes")
            message += body
            if flags & MORE:
                return None
            self._partial = None
            return bytes(message)
        if flags & MORE:
            self._partial = (type, stream, bytearray(body))
            return None
        return body

    def _response(self, stream: int, flags: int, body: bytes) -> Event | None:
        known = self._find(stream, len(body))
        message = self._message(Type.RESPONSE, stream, flags, body)
        if known is None or message is None:
            return None
        end = bool(flags & END)
        known.phase = advance(known.phase, Act.RESPOND, RemoteProtocolError)
        if end:
            self._close(stream)
        return ResponseReceived(stream, message, end)

    def _error(self, stream: int, body: bytes) -> Event | None:
        if self._find(stream, len(body)) is None:
            return None
        if len(body) < _U16.size:
            raise RemoteProtocolError("an error without a code")
        self._close(stream)
        return ErrorReceived(stream, _U16.unpack_from(body)[0], body[2:].decode(errors="replace"))

    def _request(self, stream: int, flags: int, body: bytes) -> Event | None:
        if not stream & 1 or stream <= self._last:
            raise RemoteProtocolError(f"a request on stream {stream} after {self._last}")
        message = self._message(Type.REQUEST, stream, flags, body)
        if message is None:
            return None
        self._last = stream
        if len(self._streams) >= MAX_STREAMS:
            refusal = _U16.pack(Code.RESOURCE_EXHAUSTED) + b"too many open calls"
            self._put(encode(Type.ERROR, refusal, stream=stream))
            return None
        size = message[0] if message else 0
        try:
            method = message[1 : 1 + size].decode("ascii")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a method's name that is not ASCII") from error
        if not size or len(message) <= size:
            raise RemoteProtocolError("a request without a method's name")
        self._streams[stream] = _Stream()
        return RequestReceived(stream, method, message[1 + size :])
