"""The image room with a port layer in memory and a registry in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.events.hub import EventHub
from engine.images.service import ImageService
from engine.registry.credentials import Credentials
from engine.rpc import PortLayer
from tests.engine.images.portlayer import FakePortLayer, serving
from tests.engine.registry.server import FakeRegistry
from vch.config import Guest, VchConfig


@pytest.fixture
def config(tmp_path: Path) -> VchConfig:
    return VchConfig(
        name="test",
        id="0" * 32,
        root=tmp_path / "root",
        run=tmp_path,
        guest=Guest(kernel=tmp_path / "vmlinux", initrd=tmp_path / "initrd"),
    )


@pytest.fixture
async def fake(config: VchConfig) -> AsyncIterator[FakePortLayer]:
    layer = FakePortLayer()
    async with serving(layer, config.paths.portlayer_socket):
        yield layer


@pytest.fixture
async def port(fake: FakePortLayer, config: VchConfig) -> AsyncIterator[PortLayer]:
    port = PortLayer(config.paths.portlayer_socket)
    yield port
    await port.close()


@pytest.fixture
def events() -> EventHub:
    return EventHub()


@pytest.fixture
async def service(config: VchConfig, port: PortLayer, events: EventHub) -> AsyncIterator[ImageService]:
    service = ImageService(config, port, events)
    yield service
    await service.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as registry:
        yield registry


@pytest.fixture
def nobody() -> Credentials:
    return Credentials()
