"""The guest's end of the channel: calls from the port layer, answered on the loop.

Register handlers by method name, then `serve` a descriptor (a virtio-serial
port, a raw tty, a socket). Nothing here blocks. A handler that raises gives its
caller an ERROR frame; it never ends PID 1:

* `RpcError` → its code and text;
* anything else → INTERNAL, with the exception's type and text.

Calls die with the connection: when the host resets the channel every open
call's ``on_cancel`` runs (with ``call.lost`` true) and its sends go nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from tether.loop import Loop
from tether.wire import Code

__all__ = ["Call", "Message", "RpcError", "Server"]


class Message(Protocol):
    """What we need of a protobuf message (its own module is not imported here)."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name

    def ParseFromString(self, serialized: bytes) -> int: ...  # noqa: N802 - protobuf's name


M = TypeVar("M", bound=Message)


class RpcError(Exception):
    """Raise from a handler to refuse a call: ``code`` as in gRPC, ``text`` for the end user."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Call:
    """One open call, as its handler sees it. All methods are harmless on a call that has ended."""

    method: str
    open: bool  # False after respond() of a deferred call, end, fail, cancel, or loss of the channel
    lost: bool  # ended by a reset or loss of the channel, not by the caller

    def respond(self, message: Message) -> None:
        """The first answer. Ends the call when it was registered by `unary` or `deferred`."""
        raise NotImplementedError

    def send(self, data: bytes = b"", *, end: bool = False) -> None:
        """Queue raw bytes, cut into frames as needed, to go out as the host gives credit.

        Never blocks and never refuses: ask `room` first, or `on_writable`.
        """
        raise NotImplementedError

    def send_message(self, message: Message, *, end: bool = False) -> None:
        """Queue one message as one frame (streams of messages). It must fit: wire.MAX_BODY bytes."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many bytes to send now without piling up memory; 0 or less: wait for `on_writable`."""
        raise NotImplementedError

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        """Call whenever the queue has drained and `room` is positive again after having been used up."""
        raise NotImplementedError

    def on_data(self, callback: Callable[[bytes, bool], None], *, manual_credit: bool = False) -> None:
        """Call ``callback(data, end)`` for each frame from the host; earlier ones are kept for it.

        The host may send more as soon as the callback has returned, or, with
        ``manual_credit``, as `consume` says.
        """
        raise NotImplementedError

    def consume(self, count: int) -> None:
        """With ``manual_credit``: so many bytes are off our hands."""
        raise NotImplementedError

    def on_cancel(self, callback: Callable[[], None] | None) -> None:
        """Call once when the host cancels the call or the channel is lost (see `lost`)."""
        raise NotImplementedError

    def fail(self, code: Code, text: str) -> None:
        """End the call with an error. Data not yet sent is dropped."""
        raise NotImplementedError


class Server:
    def __init__(self, loop: Loop, *, log: Callable[[str], None]) -> None: ...

    def unary(self, method: str, request: type[M], handler: Callable[[M], Message]) -> None:
        """``handler(request)`` returns the reply."""
        raise NotImplementedError

    def deferred(self, method: str, request: type[M], handler: Callable[[M, Call], None]) -> None:
        """``handler(request, call)`` keeps the call and answers later with one ``call.respond(reply)``.

        Also for calls with a stream of data from the host and one reply (CopyIn).
        """
        raise NotImplementedError

    def streaming(self, method: str, request: type[M], handler: Callable[[M, Call], None]) -> None:
        """``handler(request, call)`` keeps the call, sends data, and ends it with ``end=True``."""
        raise NotImplementedError

    def serve(self, fd: int) -> None:
        """Talk on ``fd`` from now on (made non-blocking). The descriptor stays the caller's to close."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the descriptor; open calls are lost."""
        raise NotImplementedError
