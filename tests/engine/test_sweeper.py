"""``--rm`` containers go when they exit, whenever that was."""

from __future__ import annotations

import asyncio

from tests.engine.conftest import LIMIT, Api, Images, running_engine
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig


async def gone(host: FakeHost, container: str) -> None:
    machine = host.machines.get(container)
    if machine is not None:
        await asyncio.wait_for(machine.removed.wait(), LIMIT)


async def test_exit_removes_the_container_and_its_anonymous_volumes(api: Api, host: FakeHost) -> None:
    kept = await api.run(["true"])
    container = await api.create(
        ["true"], Volumes={"/data": {}}, HostConfig={"AutoRemove": True, "Binds": ["named:/named"]}
    )
    await api("POST", f"/containers/{container}/start")
    await gone(host, container)
    while len(host.volumes) > 1:
        await asyncio.sleep(0)
    assert list(host.volumes) == ["named"]
    assert list(host.machines) == [kept]


async def test_exit_while_no_engine_was_there_is_made_good(
    host: FakeHost, config: VchConfig, images: Images
) -> None:
    client = Api(config.paths.docker_socket)
    async with running_engine(config, images):
        container = await client.run(["sleep"], HostConfig={"AutoRemove": True})
        waiting = await client.create(["sleep"], HostConfig={"AutoRemove": True})
    process = host.machines[container].process
    assert process is not None
    process.signal(9)
    async with running_engine(config, images):
        await gone(host, container)
        assert list(host.machines) == [waiting], "one that never ran stays"
    await client.close()
