"""A container's connections reach the engine's socket, and end as they should."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from portlayer.channel import ChannelClosed, ChannelLost
from portlayer.execution import relay as module
from portlayer.execution.relay import relay
from tether.tether_pb2 import RelayData


class Connection:
    """One Accept call that has a connection already."""

    def __init__(self, *frames: RelayData) -> None:
        self.frames: asyncio.Queue[RelayData | None] = asyncio.Queue()
        for frame in frames:
            self.frames.put_nowait(frame)
        self.received = bytearray()
        self.half_closed = asyncio.Event()
        self.left = asyncio.Event()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.left.set()

    async def response(self, reply: Any) -> None: ...

    async def receive(self) -> bytes:
        frame = await self.frames.get()
        return b"" if frame is None else frame.SerializeToString()

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.received += data
        if end:
            self.half_closed.set()


class Channel:
    """Hands out what it is given, then is closed; an exception is raised instead of handed out."""

    def __init__(self, *given: Any) -> None:
        self.given = list(given)

    async def stream(self, method: str, request: Any) -> Any:
        assert method == "Accept"
        if not self.given:
            raise ChannelClosed("the guest is gone")
        item = self.given.pop(0)
        if isinstance(item, Exception):
            raise item
        return item


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()  # until the other half ends
    writer.write(b"said " + data)
    writer.close()


async def test_a_conversation(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(echo, tmp_path / "engine")
    one = Connection(RelayData(data=b"o"), RelayData(data=b"ne"), RelayData(end=True))
    two = Connection(RelayData(data=b"two"), RelayData(end=True))
    serving = asyncio.create_task(relay(Channel(one, ChannelLost("cut"), two), tmp_path / "engine", "x"))  # type: ignore[arg-type]
    for connection, words in ((one, b"said one"), (two, b"said two")):
        await connection.half_closed.wait()
        assert bytes(connection.received) == words
        connection.frames.put_nowait(None)
        await connection.left.wait()
    await serving
    server.close()


async def test_an_engine_that_is_away_ends_the_connection_only(tmp_path: Path) -> None:
    one = Connection()
    await relay(Channel(one), tmp_path / "nobody", "x")  # type: ignore[arg-type]
    assert one.left.is_set()


async def test_so_many_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    server = await asyncio.start_unix_server(echo, tmp_path / "engine")
    one, two = Connection(), Connection()
    channel = Channel(one, two)
    serving = asyncio.create_task(relay(channel, tmp_path / "engine", "x"))  # type: ignore[arg-type]
    for _ in range(20):
        await asyncio.sleep(0)
    assert channel.given == [two]
    for connection in (one, two):
        connection.frames.put_nowait(RelayData(end=True))
        connection.frames.put_nowait(None)
        await connection.left.wait()
    await serving
    server.close()
