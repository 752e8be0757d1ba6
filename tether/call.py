"""One call as its handler in the guest sees it (tether/server.py owns it)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from tether.session import QUEUE, LocalProtocolError, Session
from tether.wire import MAX_BODY, Code

if TYPE_CHECKING:
    from tether.server import Server

__all__ = ["Call", "Mode", "RpcError"]


class Mode(enum.Enum):
    UNARY = "one answer, returned"
    DEFERRED = "one answer, later"
    STREAMING = "data, ended by its sender"


class RpcError(Exception):
    """Raise from a handler to refuse a call: ``code`` as in gRPC, ``text`` for the end user."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Call:
    """One open call. All methods are harmless on a call that has ended."""

    def __init__(self, server: Server, session: Session, stream: int, method: str, mode: Mode) -> None:
        self._server = server
        self._session = session
        self._stream = stream
        self._mode = mode
        self._early: list[tuple[bytes, bool]] = []  # data from before on_data; credit bounds it
        self._data: Callable[[bytes, bool], None] | None = None
        self._manual = False
        self.cancelled: Callable[[], None] | None = None
        self.method = method
        self.open = True  # False after the last answer, fail, cancel, or loss of the channel
        self.lost = False  # ended by a reset or loss of the channel, not by the caller
        self.writable: Callable[[], None] | None = None

    def respond(self, message: Message) -> None:
        """The first answer. Ends the call unless it is a streaming one."""
        if not self.open:
            return
        end = self._mode is not Mode.STREAMING
        self._session.respond(self._stream, message.SerializeToString(), end=end)
        if end:
            self._finish()
        self._server.schedule()

    def send(self, data: bytes = b"", *, end: bool = False) -> None:
        """Queue raw bytes, cut into frames as needed, to go out as the host gives credit.

        Never blocks and never refuses: ask `room` first, or `on_writable`.
        """
        if not self.open:
            return
        self._session.send(self._stream, data, end=end)
        if end:
            self.open = False  # it stays known to the server until its last frame has gone out
        self._server.schedule()

    def send_message(self, message: Message, *, end: bool = False) -> None:
        """Queue one message as one frame (streams of messages).

        Raises:
            LocalProtocolError: it does not fit wire.MAX_BODY bytes.
        """
        data = message.SerializeToString()
        if len(data) > MAX_BODY:
            raise LocalProtocolError(f"a message of {len(data)} bytes in a stream; the most is {MAX_BODY}")
        self.send(data, end=end)

    @property
    def room(self) -> int:
        """How many bytes to send now without piling up memory; 0 or less: wait for `on_writable`."""
        return QUEUE - self._session.queued(self._stream) if self.open else 0

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        """Call whenever queued data has gone out and there is plenty of `room` (perhaps once too often)."""
        self.writable = callback

    def on_data(self, callback: Callable[[bytes, bool], None], *, manual_credit: bool = False) -> None:
        """Call ``callback(data, end)`` for each frame from the host; earlier ones are kept for it.

        The host may send more as soon as the callback has returned, or, with
        ``manual_credit``, as `consume` says.
        """
        self._data = callback
        self._manual = manual_credit
        early, self._early = self._early, []
        for data, end in early:
            self.receive(data, end)

    def consume(self, count: int) -> None:
        """With ``manual_credit``: so many bytes are off our hands."""
        self._session.consume(self._stream, count)
        self._server.schedule()

    def on_cancel(self, callback: Callable[[], None] | None) -> None:
        """Call once when the call ends otherwise than by its handler's word.

        The host cancelled it, the channel is lost (see `lost`), or one of the
        handler's callbacks raised.
        """
        self.cancelled = callback

    def fail(self, code: Code, text: str) -> None:
        """End the call with an error. Data not yet sent is dropped."""
        if not self.open:
            return
        self._session.fail(self._stream, code, text)
        self._finish()

    def _finish(self) -> None:
        self.close(lost=False)
        self._server.forget(self._stream)

    # -- for the server

    def receive(self, data: bytes, end: bool) -> None:
        if not self.open:
            return
        if self._data is None:
            self._early.append((data, end))
            return
        self._data(data, end)
        if not self._manual:
            self._session.consume(self._stream, len(data))

    def close(self, *, lost: bool) -> Callable[[], None] | None:
        """The call is over; returns whom to tell."""
        callback = self.cancelled
        self.open = False
        self.lost = lost
        self.cancelled = self.writable = self._data = None
        self._early.clear()
        return callback
