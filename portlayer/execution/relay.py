"""Connections of a container to the engine's socket (`-v /var/run/docker.sock:…`), over its channel.

One ``Accept`` call waits in the guest; once it has a connection it is that
connection, and the next one waits. A container can have so many connections at
once and no more: the others wait in the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from google.protobuf.message import DecodeError

from portlayer.channel import ChannelClosed, ChannelError, ChannelLost
from portlayer.execution.rooms import Channel, GuestStream
from tether.tether_pb2 import Empty, RelayData

__all__ = ["relay"]

log = logging.getLogger(__name__)
AT_ONCE = 64
_PIECE = 16 * 1024


async def relay(channel: Channel, target: Path, name: str) -> None:
    """Until cancelled or the guest is gone. ``name`` is for the log."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as connections:
        while True:
            await gate.acquire()
            try:
                stream = await channel.stream("Accept", Empty())
                await stream.response(Empty)
            except ChannelLost:
                gate.release()
                continue
            except ChannelClosed:
                return
            except ChannelError as error:
                log.warning("container %s: its engine socket is dead: %s", name, error)
                return
            connections.create_task(_serve(stream, target, gate, name))


async def _serve(stream: GuestStream, target: Path, gate: asyncio.Semaphore, name: str) -> None:
    try:
        async with stream:
            reader, writer = await asyncio.open_unix_connection(str(target))
            try:
                up = asyncio.create_task(_to_engine(stream, writer))
                down = asyncio.create_task(_to_guest(stream, reader))
                try:
                    await asyncio.gather(up, down)
                finally:
                    up.cancel()
                    down.cancel()
            finally:
                writer.close()
    except (OSError, ChannelError, DecodeError) as error:
        log.info("container %s: a connection to the engine ended: %s", name, error)
    finally:
        gate.release()


async def _to_engine(stream: GuestStream, writer: asyncio.StreamWriter) -> None:
    while body := await stream.receive():
        message = RelayData.FromString(body)
        if message.end:
            with contextlib.suppress(OSError):  # it has closed already
                writer.write_eof()
            continue
        writer.write(message.data)
        await writer.drain()


async def _to_guest(stream: GuestStream, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_PIECE):
        await stream.send(data)
    await stream.send(b"", end=True)
