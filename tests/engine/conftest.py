"""An engine over a port layer in memory, reached over its unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.app import build_application
from engine.catalog import ImageRecord
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.index import ContainerIndex
from engine.context import Engine
from engine.events.hub import EventHub
from engine.events.pump import EventPump
from engine.http import HttpServer, NotFound
from engine.rpc import PortLayer
from engine.sweeper import Sweeper
from tests.engine.fake.services import serving
from tests.engine.fake.state import FakeHost
from vch.config import Guest, VchConfig

LIMIT = 20.0


@dataclass
class Images:
    """A catalog with one image, ``busybox``, and whatever a test adds."""

    records: dict[str, ImageRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("busybox:latest", "a" * 64, {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"]})

    def add(self, name: str, digest: str, config: Mapping[str, Any]) -> ImageRecord:
        record = ImageRecord(
            id=f"sha256:{digest}", layer=f"sha256:{'1' * 64}", config=config, repo_tags=[name], size=4000
        )
        self.records[name] = record
        return record

    async def resolve(self, reference: str) -> ImageRecord:
        for name, record in self.records.items():
            if reference in (name, name.removesuffix(":latest"), record.id, record.id[7:19]):
                return record
        raise NotFound(f"No such image: {reference}")

    async def list(self) -> list[ImageRecord]:
        return list(self.records.values())

    async def tidy(self) -> None:
        """Nothing is ever left half done here."""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Api:
    """A small HTTP client: one connection per request, streams and hijacks left open on demand."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._writers: list[asyncio.StreamWriter] = []

    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=1 << 20)
        self._writers.append(writer)
        payload = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: docker", f"Content-Length: {len(payload)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        lines += [f"{name}: {value}" for name, value in headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        await writer.drain()
        return reader, writer

    @staticmethod
    async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
        lines = raw.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        reader, writer = await self.open(method, path, body, **options)
        status, headers = await self.head(reader)
        data = b""
        if method != "HEAD" and headers.get("transfer-encoding") == "chunked":
            data = b"".join([chunk async for chunk in self.chunks(reader)])
        elif method != "HEAD" and headers.get("content-length"):
            data = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), LIMIT)
        writer.close()
        return Reply(status, headers, data)

    @staticmethod
    async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while size := int(await asyncio.wait_for(reader.readline(), LIMIT), 16):
            yield await asyncio.wait_for(reader.readexactly(size), LIMIT)
            await reader.readline()
        await reader.readline()

    async def create(self, argv: Sequence[str] = ("sleep",), name: str = "", **config: Any) -> str:
        body = {"Image": "busybox", "Cmd": list(argv), **config}
        reply = await self("POST", f"/containers/create?name={name}", body)
        assert reply.status == 201, reply.body
        return str(reply.json["Id"])

    async def run(self, argv: Sequence[str] = ("sleep",), name: str = "", **config: Any) -> str:
        container = await self.create(argv, name, **config)
        reply = await self("POST", f"/containers/{container}/start")
        assert reply.status == 204, reply.body
        return container

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.fixture
def config(tmp_path: Path) -> VchConfig:
    return VchConfig(
        name="test",
        id="0" * 32,
        root=tmp_path / "root",
        run=tmp_path,
        guest=Guest(kernel=tmp_path / "vmlinux", initrd=tmp_path / "initrd"),
        docker_group="root",
    )


@pytest.fixture
async def host(config: VchConfig) -> AsyncIterator[FakeHost]:
    made = FakeHost()
    async with serving(made, config.paths.portlayer_socket):
        yield made


@pytest.fixture
def images() -> Images:
    return Images()


@contextlib.asynccontextmanager
async def running_engine(config: VchConfig, images: Images) -> AsyncIterator[Engine]:
    port = PortLayer(config.paths.portlayer_socket)
    engine = Engine(
        config=config,
        port=port,
        images=images,
        events=EventHub(),
        containers=ContainerIndex(port),
        anonymous=AnonymousVolumes(port),
    )
    server = HttpServer(build_application(engine))
    sweeper = Sweeper(engine)
    connected = asyncio.Event()

    async def on_connected() -> None:
        await sweeper.sweep()
        connected.set()

    pump = EventPump(engine, on_connected=on_connected, on_container=sweeper.on_container)
    pumping = asyncio.create_task(pump.run())
    await server.listen_unix(config.paths.docker_socket, group=config.docker_group)
    await asyncio.wait_for(connected.wait(), LIMIT)
    try:
        yield engine
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})
        await server.close()
        await sweeper.close()
        await port.close()


@pytest.fixture
async def engine(config: VchConfig, host: FakeHost, images: Images) -> AsyncIterator[Engine]:
    async with running_engine(config, images) as made:
        yield made


@pytest.fixture
async def api(engine: Engine, config: VchConfig) -> AsyncIterator[Api]:
    client = Api(config.paths.docker_socket)
    yield client
    await client.close()
