"""Streams that outlive the port layer: ``logs --follow`` and attach.

Output is in the container's journal and the port layer's marks say how far it
has been handed on; input is kept until the port layer has said that the process
was sent it. So when the port layer dies (or is upgraded), the next one is asked
to go on there, and the client notices a pause: no byte is lost or doubled.
(With several clients typing into one process at that moment, output still is
exact; input is as exact as one client's count can be.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from engine.rpc import PortLayer, PortLayerError, PortLayerUnavailable, Session
from portlayer import portlayer_pb2 as pb

__all__ = ["LastingAttach", "follow_logs", "lasting_attach"]

PATIENCE = 60.0  # seconds that a port layer may be gone


async def follow_logs(port: PortLayer, wanted: pb.LogsRequest) -> AsyncGenerator[pb.LogRecord, None]:
    while True:
        try:
            async with aclosing(port.stream(port.interaction.Logs, wanted)) as records:
                async for record in records:
                    wanted.mark = record.mark
                    if record.stream:
                        yield record
            return
        except PortLayerUnavailable:
            if not wanted.mark:
                raise
            await port.ready(PATIENCE)


@asynccontextmanager
async def lasting_attach(port: PortLayer, opening: pb.AttachOpen) -> AsyncIterator[LastingAttach]:
    """Attach; the session is open when this returns."""
    async with AsyncExitStack() as stack:
        session = LastingAttach(port, opening, stack)
        await session.open()
        yield session


class LastingAttach:
    """The same to its user as one `Session`."""

    def __init__(self, port: PortLayer, opening: pb.AttachOpen, stack: AsyncExitStack) -> None:
        self._port = port
        self._opening = pb.AttachOpen()
        self._opening.CopyFrom(opening)
        self._stack = stack
        self._session: Session[pb.InputChunk, pb.OutputChunk] | None = None
        self._sending = asyncio.Lock()  # held while input is sent anew: later input comes behind it
        self._kept = bytearray()  # input that the process may not have got
        self._closed = False

    async def open(self) -> None:
        """Raises PortLayerError: it cannot be attached to."""
        session = await self._stack.enter_async_context(self._port.session(self._port.interaction.Attach))
        await session.send(pb.InputChunk(open=self._opening))
        ready = await session.receive()
        if ready is None or ready.stream != pb.OutputChunk.READY:
            raise PortLayerError("the port layer did not open the attach session", status=500)
        self._opening.mark = self._opening.mark or ready.mark
        self._session = session

    async def send(self, chunk: pb.InputChunk) -> None:
        """Raises PortLayerError: the session has ended."""
        async with self._sending:
            assert self._session is not None
            self._kept += chunk.data
            self._closed = self._closed or chunk.close
            try:
                await self._session.send(chunk)
            except PortLayerError:
                if not self._opening.mark:
                    raise
                # It is kept; whoever receives finds out whether this is the end or a restart.

    async def receive(self) -> pb.OutputChunk | None:
        """The next message, ``None`` at the end."""
        while True:
            assert self._session is not None
            try:
                chunk = await self._session.receive()
            except PortLayerUnavailable:
                if not self._opening.mark:
                    raise
                await self._resume()
                continue
            if chunk is None:
                return None
            if chunk.stream == pb.OutputChunk.STDIN_ACK:
                self._acknowledge(chunk.offset)
                continue
            self._opening.mark = chunk.mark or self._opening.mark
            return chunk

    def _acknowledge(self, offset: int) -> None:
        if self._opening.HasField("stdin_offset"):
            del self._kept[: offset - self._opening.stdin_offset]
        self._opening.stdin_offset = offset

    async def _resume(self) -> None:
        async with self._sending:
            while True:
                await self._port.ready(PATIENCE)
                try:
                    await self.open()
                    assert self._session is not None
                    if self._kept or self._closed:
                        await self._session.send(pb.InputChunk(data=bytes(self._kept), close=self._closed))
                except PortLayerUnavailable:
                    continue  # it died again
                return
