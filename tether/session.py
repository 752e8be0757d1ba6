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

from tether.callstate import (
    Act,
    LocalProtocolError,
    Phase,
    ProtocolError,
    RemoteProtocolError,
    advance,
)
from tether.outbox import QUEUE, WINDOW, Outbox
from tether.session_events import (
    CancelReceived,
    DataReceived,
    ErrorReceived,
    Event,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    SessionFailed,
    SessionStarted,
)
from tether.wire import END, MAX_BODY, MORE, PADDING, PIECE, Code, Decoder, Frame, Type, encode

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

MAX_MESSAGE = 1 << 20  # a REQUEST or RESPONSE with all its continuations
MAX_STREAMS = 1024  # open at once
_GRANT = WINDOW // 4  # consumed bytes worth a CREDIT frame
_MAX_CREDIT = 1 << 31
_PADDED = 16  # every so many resets with one nonce: the first padding may have been damaged
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


class _Stream:
    __slots__ = ("consumed", "granted", "phase")

    def __init__(self) -> None:
        self.phase = Phase.ASKED
        self.granted = WINDOW  # the peer may send
        self.consumed = 0  # of what it sent, not granted anew yet


class Session:
    def __init__(self, role: Role) -> None:
        self.state = State.WAITING
        self._host = role is Role.HOST
        self._decoder = Decoder()
        self._nonce = b""
        self._resets = 0  # repetitions with this nonce
        self._streams: dict[int, _Stream] = {}
        self._last = -1 if self._host else 0  # the newest stream
        self._outbox = Outbox(self._sent)
        self._partial: tuple[int, int, bytearray] | None = None  # type, stream, message so far
        self._stale = 0  # bytes that may still arrive on streams we closed
        self.frames = 0  # good frames received

    @property
    def noise(self) -> int:
        """Bytes received that belonged to no good frame."""
        return self._decoder.noise

    @property
    def backlog(self) -> int:
        """Bytes of control frames that wait to be sent."""
        return self._outbox.backlog

    # ------------------------------------------------------------ sending

    def reset(self, nonce: bytes) -> None:
        """Host: ask for a session. Call again with the same nonce while no answer comes."""
        if not self._host or self.state is not State.WAITING:
            raise LocalProtocolError("only a host without a session resets")
        self._put_reset(nonce)

    def open(self, method: str, body: bytes) -> int:
        """Host: send a REQUEST; returns its stream."""
        if not self._host or self.state is not State.OPEN:
            raise LocalProtocolError("only a host with a session opens calls")
        if len(self._streams) >= MAX_STREAMS:
            raise LocalProtocolError(f"{MAX_STREAMS} calls are open already")
        name = method.encode()
        self._put_message(Type.REQUEST, self._last + 2, bytes((len(name),)) + name + body)
        self._last += 2
        self._begin(self._last)
        return self._last

    def respond(self, stream: int, body: bytes, *, end: bool) -> None:
        """Guest: the first answer; with ``end`` also the last word."""
        known = self._own(stream)
        if self._outbox.ending(stream) or self._outbox.queued(stream):
            raise LocalProtocolError("an answer behind data")
        phase = advance(known.phase, Act.RESPOND, LocalProtocolError)
        self._put_message(Type.RESPONSE, stream, body, flags=END if end else 0)
        known.phase = phase
        if end:
            self._close(stream)

    def fail(self, stream: int, code: int, text: str) -> None:
        """Guest: end the call with an error; data not sent yet is dropped."""
        self._own(stream)
        self._outbox.put(encode(Type.ERROR, _U16.pack(code) + text.encode()[:_MAX_TEXT], stream=stream))
        self._close(stream)

    def cancel(self, stream: int) -> None:
        """Host: no longer interested. What the guest has sent meanwhile is ignored."""
        known = self._own(stream)
        self._stale += known.granted + MAX_MESSAGE + MAX_BODY  # data, an answer, an error
        self._outbox.put(encode(Type.CANCEL, stream=stream))
        self._close(stream)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Queue data; `pull` sends it as credit allows. With ``end`` our half ends behind it."""
        known = self._own(stream)
        if self._outbox.ending(stream) or (self._host and not known.phase.host_may_send):
            raise LocalProtocolError("data behind the end")
        self._outbox.queue(stream, data, end=end)

    def consume(self, stream: int, count: int) -> None:
        """So many received bytes are off our hands: the peer may send as many more. Fine after the end."""
        known = self._streams.get(stream)
        if known is None or not (self._host or known.phase.host_may_send):
            return
        known.consumed += count
        if known.consumed >= _GRANT:
            self._outbox.put(encode(Type.CREDIT, _U32.pack(known.consumed), stream=stream))
            known.granted += known.consumed
            known.consumed = 0

    def ping(self, body: bytes) -> None:
        self._outbox.put(encode(Type.PING, body))

    def queued(self, stream: int) -> int:
        """Bytes of data waiting to be sent on a stream."""
        return self._outbox.queued(stream)

    def is_open(self, stream: int) -> bool:
        return stream in self._streams

    def take_drained(self) -> list[int]:
        """Streams whose queue `pull` has made short, or whose last frame it took, since asked last."""
        return self._outbox.take_drained()

    def pull(self, limit: int = MAX_BODY) -> bytes:
        """The next bytes to send: whole frames, about ``limit`` bytes, b"" if there is nothing to say.

        What has been pulled can no longer be overtaken, so pull little at a time.
        """
        return self._outbox.pull(limit)

    def _sent(self, stream: int, last: bool) -> None:
        known = self._streams[stream]
        if self._host:
            act = Act.HOST_END if last else Act.HOST_DATA
        else:
            act = Act.FINISH if last else Act.GUEST_DATA
        known.phase = advance(known.phase, act, LocalProtocolError)
        if known.phase is Phase.CLOSED:
            self._close(stream)

    def _own(self, stream: int) -> _Stream:
        try:
            return self._streams[stream]
        except KeyError:
            raise LocalProtocolError(f"no open call {stream}") from None

    def _put_message(self, type: Type, stream: int, body: bytes, *, flags: int = 0) -> None:
        if len(body) > MAX_MESSAGE:
            raise LocalProtocolError(f"a message of {len(body)} bytes; the most is {MAX_MESSAGE}")
        at = 0
        while len(body) - at > MAX_BODY:
            self._outbox.put(encode(type, body[at : at + PIECE], stream=stream, flags=MORE))
            at += PIECE
        self._outbox.put(encode(type, body[at:] if at else body, stream=stream, flags=flags))

    def _put_reset(self, nonce: bytes) -> None:
        """A repetition is not padded anew: on a slow line it would only stand in its own way."""
        self._resets = self._resets + 1 if nonce == self._nonce else 0
        self._nonce = nonce
        if self._resets % _PADDED == 0:
            self._outbox.put(PADDING)
        self._outbox.put(encode(Type.RESET, nonce))

    def _begin(self, stream: int) -> None:
        self._streams[stream] = _Stream()
        self._outbox.open(stream)

    def _close(self, stream: int) -> None:
        del self._streams[stream]
        self._outbox.close(stream)

    def _forget(self) -> None:
        self._streams.clear()
        self._outbox.clear()
        self._partial = None
        self._stale = 0

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
                self._outbox.put(encode(Type.PONG, body[:8]))
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
            if self.state is State.WAITING and self._nonce and nonce == self._nonce:
                self._outbox.clear_control()  # repetitions that have not gone out
                self.state = State.OPEN
                return SessionStarted()
            if self.state is State.OPEN and nonce != self._nonce:
                raise RemoteProtocolError("a reset that we did not ask for")
            return None  # the answer to a repetition
        if len(nonce) != 16:
            raise RemoteProtocolError("a reset without a nonce")
        self._forget()
        self._last = 0
        self._put_reset(nonce)
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
        if self._outbox.grant(stream, _U32.unpack(body)[0]) > _MAX_CREDIT:
            raise RemoteProtocolError(f"credit without end on stream {stream}")

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
            self._outbox.put(encode(Type.ERROR, refusal, stream=stream))
            return None
        size = message[0] if message else 0
        try:
            method = message[1 : 1 + size].decode("ascii")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a method's name that is not ASCII") from error
        if not size or len(message) <= size:
            raise RemoteProtocolError("a request without a method's name")
        self._begin(stream)
        return RequestReceived(stream, method, message[1 + size :])
