"""Log driver syslog: what a container says reaches its server, once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution import forward
from portlayer.portlayer_pb2 import LogConfig, Reason
from tests.portlayer.world import World, always

ID = "1" * 64
OPTIONS = {"scheme": "udp", "address": "10.0.0.1:514", "facility": "3", "tag": "x/{{.Name}}"}


class Server:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.up = True
        self.arrived = asyncio.Event()

    async def connect(self, scheme: str, address: str, tls: Mapping[str, str]) -> Server:
        self._check()
        return self

    async def send(self, message: bytes) -> None:
        self._check()
        self.messages.append(message.partition(b": ")[2])
        self.arrived.set()

    def close(self) -> None: ...

    def _check(self) -> None:
        if not self.up:
            raise ConnectionRefusedError("connection refused")

    async def has(self, *lines: bytes) -> None:
        while self.messages != list(lines):
            self.arrived.clear()
            await self.arrived.wait()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(forward, "connect", made.connect)
    monkeypatch.setattr(forward, "_FIRST_DELAY", 0.01)
    yield made


def config() -> LogConfig:
    return LogConfig(driver="syslog", options=OPTIONS)


async def test_each_line_is_sent(world: World, server: Server) -> None:
    await world.running(ID, log=config())
    world.guest(ID).output(b"one\ntw")
    world.guest(ID).output(b"o\n")
    world.guest(ID).output(b"rest")
    await server.has(b"one\n", b"two\n")
    world.guest(ID).exit(0)
    await server.has(b"one\n", b"two\n", b"rest\n")


async def test_a_server_that_is_away_gets_everything_later(world: World, server: Server) -> None:
    await world.running(ID, log=config(), restart=always())
    server.up = False
    world.guest(ID).output(b"one\ntwo\n")
    await asyncio.sleep(0.02)
    server.up = True
    await server.has(b"one\n", b"two\n")


async def test_without_a_server_nothing_starts(world: World, server: Server) -> None:
    server.up = False
    await world.create(ID, log=config())
    with pytest.raises(PortLayerError, match="failed to initialize logging driver") as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.LAUNCH_FAILED


async def test_a_new_port_layer_goes_on_where_the_old_one_stopped(world: World, server: Server) -> None:
    await world.running(ID, log=config())
    world.guest(ID).output(b"one\n")
    await server.has(b"one\n")
    note = world.vm(ID).journal.with_name(forward.NOTE)
    while not note.exists():
        await asyncio.sleep(0)
    await world.crash()
    world.guest(ID).output(b"two\n")
    world.guest(ID).exit(0)
    await world.boot()
    await server.has(b"one\n", b"two\n")
