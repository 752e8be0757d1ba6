"""A client's byte stream with half-close: the thing under HTTP and under a hijacked session.

Invariant: ``read`` returning ``b""`` says only that the client has finished
*sending*. Writing stays possible until :class:`Disconnected` says otherwise;
that is what ``echo x | docker run -i …`` rests on. The same promise holds for
unix sockets, TCP and TLS (:mod:`engine.http.tls`).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Protocol

from engine.http.errors import Disconnected

__all__ = ["READ_SIZE", "PlainTransport", "Transport"]

READ_SIZE = 64 * 1024
LINGER_SECONDS = 2.0
LINGER_BYTES = 1 << 20


class Transport(Protocol):
    @property
    def peer(self) -> str:
        """Who is at the other end, for the log."""

    async def read(self, limit: int = READ_SIZE) -> bytes:
        """Up to ``limit`` bytes; ``b""`` when the client has closed its sending half.

        A client known to have closed both is Disconnected. Cancelling loses no bytes.
        """

    async def write(self, data: bytes) -> None:
        """Send everything; returns when the buffer is below its high-water mark (back-pressure)."""

    async def write_eof(self) -> None:
        """Close our sending half after all that was written."""

    async def close(self) -> None:
        """Close both halves such that what was written still arrives. Never raises."""

    def abort(self) -> None:
        """Drop the connection and all buffers at once."""


class PlainTransport:
    """A unix or TCP socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        name = writer.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    async def read(self, limit: int = READ_SIZE) -> bytes:
        try:
            data = await self._reader.read(limit)
        except OSError as error:
            raise Disconnected(str(error)) from error
        if not data and self._is_gone():
            raise Disconnected("the client closed the connection")
        return data

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise Disconnected("connection closed")
        self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise Disconnected(str(error)) from error

    async def write_eof(self) -> None:
        try:
            self._writer.write_eof()
        except (OSError, RuntimeError) as error:  # RuntimeError: asyncio's word for a closing transport
            raise Disconnected(str(error)) from error

    async def close(self) -> None:
        try:
            with contextlib.suppress(Disconnected, OSError):  # the client was faster: nothing left to say
                await self.write_eof()
                await self._flush()
                await self._linger()
        finally:
            self._writer.transport.abort()

    def abort(self) -> None:
        self._writer.transport.abort()

    def _is_gone(self) -> bool:
        """After the end of input: has the client closed both halves? Only unix sockets tell."""
        if self._writer.transport.is_closing():
            return True
        connection = self._writer.get_extra_info("socket")
        poll = select.poll()
        poll.register(connection.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    async def _flush(self) -> None:
        """Wait for the client to take everything, at its own pace."""
        self._writer.transport.set_write_buffer_limits(high=0)
        await self._writer.drain()

    async def _linger(self) -> None:
        """Drop late input for a moment.

        Closing a TCP socket with unread bytes in it sends a reset, and a reset
        throws away what the client has not read yet: the end of a container's
        output.
        """
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while dropped < LINGER_BYTES:
                    data = await self.read()
                    if not data:
                        return
                    dropped += len(data)
