"""One guest's channel: connection, hello, calls, streams, events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from google.protobuf.message import Message

from tether.tether_pb2 import Event, HelloReply

__all__ = ["ChannelStream", "TetherChannel"]

M = TypeVar("M", bound=Message)
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class TetherChannel:
    def __init__(self, connect: Connect, *, name: str) -> None:
        """``connect`` makes a fresh connection (Hypervisor.open_channel); ``name`` is for log lines."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to connect, in the background; returns at once."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all calls with ChannelClosed and let go. The guest is not told."""
        raise NotImplementedError

    async def ready(self) -> HelloReply:
        """Wait for a session (no time limit: use asyncio.timeout); the guest's latest hello.

        Raises:
            ChannelClosed: after close().
        """
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether there is a session right now."""
        raise NotImplementedError

    def on_session(self, callback: Callable[[HelloReply], None]) -> Callable[[], None]:
        """Call on every new session; returns a function that stops it."""
        raise NotImplementedError

    async def call(self, method: str, request: Message, reply: type[M], *, timeout: float = 30) -> M:
        """One question, one answer. Waits for a session first; ``timeout`` covers both.

        Raises:
            TetherError: the guest's refusal, or DEADLINE_EXCEEDED.
            ChannelLost: the connection died after the question was sent.
            ChannelClosed: after close().
        """
        raise NotImplementedError

    async def stream(self, method: str, request: Message) -> ChannelStream:
        """Open a call with data. Waits for a session first (use asyncio.timeout)."""
        raise NotImplementedError

    def events(self) -> AsyncIterator[Event]:
        """Every event of the guest, each once, over all reconnects; ends with ChannelClosed.

        Begins with what the guest still remembers. After a reboot of the guest
        (another boot nonce) it begins anew.
        """
        raise NotImplementedError


class ChannelStream:
    """An open call. Leaving ``async with`` cancels it if it has not ended."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    async def response(self, reply: type[M]) -> M:
        """The first answer. Attach answers Empty once it is in place."""
        raise NotImplementedError

    async def receive(self) -> bytes:
        """The next data frame's body; b"" at the end.

        Raises:
            TetherError: the guest ended the call with an error.
            ChannelLost, ChannelClosed
        """
        raise NotImplementedError

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send; waits for the guest's credit. Up to wire.MAX_BODY bytes go as one frame (one message)."""
        raise NotImplementedError

    async def cancel(self) -> None:
        """No longer interested. Harmless when the call has ended."""
        raise NotImplementedError
