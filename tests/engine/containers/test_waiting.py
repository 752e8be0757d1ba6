"""Waiting while the port layer restarts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.engine.conftest import Api, Images, running_engine
from tests.engine.fake.services import serving
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig


class Stage:
    """An engine over a port layer that can be taken away and brought back."""

    def __init__(self, config: VchConfig) -> None:
        self.config = config
        self.host = FakeHost()
        self.api = Api(config.paths.docker_socket)
        self._serving = contextlib.AsyncExitStack()

    async def up(self) -> None:
        await self._serving.enter_async_context(
            serving(self.host, self.config.paths.portlayer_socket, keep=True)
        )

    async def down(self) -> None:
        await self._serving.aclose()


@pytest.fixture
async def stage(config: VchConfig, images: Images) -> AsyncIterator[Stage]:
    made = Stage(config)
    await made.up()
    async with running_engine(config, images):
        yield made
        await made.api.close()
    await made.down()
    await made.host.close()


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed"])
@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
async def test_waiter_outlives_its_port_layer(stage: Stage, condition: str, when: str) -> None:
    api, host = stage.api, stage.host
    container = await api.run(["sleep"])
    reader, _ = await api.open("POST", f"/containers/{container}/wait?condition={condition}")
    assert (await api.head(reader))[0] == 200
    process = host.machines[container].process
    assert process is not None
    await stage.down()
    if when == "meanwhile":
        process.signal(9)
    await stage.up()
    if when == "afterwards":
        process.signal(9)
    if condition == "removed":
        await host.machines[container].stopped.wait()
        assert (await api("DELETE", f"/containers/{container}")).status == 204
    assert b"".join([chunk async for chunk in api.chunks(reader)]) == b'{"StatusCode": 137}\n'
