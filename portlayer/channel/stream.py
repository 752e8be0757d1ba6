"""One open call, on the host's side."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from google.protobuf.message import DecodeError, Message

from portlayer.channel.errors import ChannelError, TetherError
from tether.session import QUEUE
from tether.wire import MAX_BODY, PIECE, Code

if TYPE_CHECKING:
    from portlayer.channel.connection import Connection

__all__ = ["ChannelStream", "parse"]

M = TypeVar("M", bound=Message)


def parse(kind: type[M], body: bytes) -> M:
    """A message from the guest.

    Raises:
        TetherError: DATA_LOSS, it is none.
    """
    message = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise TetherError(Code.DATA_LOSS, f"the guest sent no {kind.DESCRIPTOR.name}: {error}") from error
    return message


class ChannelStream:
    """Leaving ``async with`` cancels the call if it has not ended.

    What has arrived before the end, an error or the loss of the connection is
    still received before that is raised.
    """

    def __init__(self, connection: Connection, number: int, method: str) -> None:
        self._connection = connection
        self._number = number
        self._method = method
        self._answer: bytes | None = None
        self._bodies: deque[bytes] = deque()  # at most a window of them
        self._ended = False
        self._error: ChannelError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    async def response(self, reply: type[M]) -> M:
        """The first answer. Attach answers Empty once it is in place.

        Raises:
            TetherError: the guest refused, or ended the call without an answer.
            ChannelLost, ChannelClosed
        """
        while self._answer is None:
            if self._error is not None:
                raise self._error
            if self._ended or self._bodies:
                raise TetherError(Code.DATA_LOSS, f"the guest did not answer {self._method}")
            await self._change()
        return parse(reply, self._answer)

    async def receive(self) -> bytes:
        """The next data frame's body; b"" at the end.

        Raises:
            TetherError: the guest ended the call with an error.
            ChannelLost, ChannelClosed
        """
        while not self._bodies:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._change()
        body = self._bodies.popleft()
        self._connection.consume(self._number, len(body))
        return body

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send; waits for the guest's credit. Up to wire.MAX_BODY bytes go as one frame (one message).

        Raises:
            TetherError: the guest has ended the call: with this error, or FAILED_PRECONDITION.
            ChannelLost, ChannelClosed
        """
        size = len(data)
        step = PIECE if size > MAX_BODY else max(size, 1)
        for at in range(0, max(size, 1), step):
            while True:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise TetherError(Code.FAILED_PRECONDITION, f"the guest has ended {self._method}")
                if self._connection.queued(self._number) < QUEUE:
                    break
                await self._change()
            self._connection.send(self._number, data[at : at + step], end=end and at + step >= size)

    async def cancel(self) -> None:
        """No longer interested. Harmless when the call has ended."""
        if self._error is None and not self._ended:
            self._connection.cancel(self._number)
            self.on_error(TetherError(Code.CANCELLED, f"{self._method} was cancelled"))

    # -- for the connection

    def on_answer(self, body: bytes, end: bool) -> None:
        self._answer = body
        self._ended = end
        self.wake()

    def on_data(self, body: bytes, end: bool) -> None:
        if body:
            self._bodies.append(body)
        self._ended = end
        self.wake()

    def on_error(self, error: ChannelError) -> None:
        if not self._ended and self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
