"""Anonymous volumes whose container is half made or half removed, as a killed engine leaves them."""

from __future__ import annotations

import json

import pytest

from engine.context import Engine
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api, Images, running_engine
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig

ID = "c" * 64


def left_behind(host: FakeHost, container: str, *volumes: str, anonymous: bool = True) -> None:
    """What there is when an engine was killed between a container and its volumes."""
    key = f"anonymous/{container}"
    host.keys[key] = pb.KeyValue(key=key, value=json.dumps(volumes).encode())
    for name in volumes:
        host.volumes[name] = pb.Volume(name=name, anonymous=anonymous)


async def test_volumes_whose_container_never_came_are_swept(
    host: FakeHost, config: VchConfig, images: Images
) -> None:
    left_behind(host, ID, "one", "two")
    async with running_engine(config, images):
        assert (list(host.volumes), list(host.keys)) == ([], [])


async def test_volumes_of_a_container_that_came_stay(
    host: FakeHost, config: VchConfig, images: Images, api: Api
) -> None:
    container = await api.create(Volumes={"/data": {}})
    volumes = list(host.volumes)
    left_behind(host, container, *volumes)
    async with running_engine(config, images):
        assert (list(host.volumes), list(host.keys)) == (volumes, [])


async def test_volumes_with_names_and_volumes_in_use_stay(
    host: FakeHost, config: VchConfig, images: Images, api: Api
) -> None:
    await api.create(HostConfig={"Binds": ["shared:/data"]})
    host.volumes["shared"].anonymous = True
    left_behind(host, ID, "named", anonymous=False)
    host.keys[f"anonymous/{ID}"].value = b'["named", "shared", "never-made"]'
    async with running_engine(config, images):
        assert (sorted(host.volumes), list(host.keys)) == (["named", "shared"], [])


async def test_a_removal_under_way_is_waited_for(
    host: FakeHost, config: VchConfig, images: Images, api: Api
) -> None:
    container = await api.create(Volumes={"/data": {}})
    left_behind(host, container, *host.volumes)
    host.machines[container].state.status = pb.ContainerState.REMOVING
    async with running_engine(config, images) as engine:
        assert len(host.volumes) == 1
        host.machines.pop(container)
        await engine.anonymous.settle(container)
        assert (list(host.volumes), list(host.keys)) == ([], [])


async def test_a_later_removal_without_volumes_keeps_them(api: Api, host: FakeHost, engine: Engine) -> None:
    container = await api.create(Volumes={"/data": {}})
    volumes = list(host.volumes)
    left_behind(host, container, *volumes)
    host.machines[container].state.status = pb.ContainerState.REMOVING
    await engine.anonymous.sweep()
    host.machines[container].state.status = pb.ContainerState.EXITED
    assert (await api("DELETE", f"/containers/{container}")).status == 204
    await engine.anonymous.sweep()
    assert (list(host.volumes), list(host.keys)) == (volumes, [])


async def test_a_create_that_is_refused_leaves_no_volume(api: Api, host: FakeHost) -> None:
    await api.create(name="taken")
    reply = await api("POST", "/containers/create?name=taken", {"Image": "busybox", "Volumes": {"/data": {}}})
    assert reply.status == 409
    assert (list(host.volumes), list(host.keys)) == ([], [])


async def test_a_damaged_document_is_no_reason_to_stop(
    host: FakeHost, config: VchConfig, images: Images
) -> None:
    left_behind(host, ID)
    host.keys[f"anonymous/{ID}"].value = b"{"
    async with running_engine(config, images):
        assert list(host.keys) == []


async def test_what_raises_inside_comes_out(engine: Engine, host: FakeHost) -> None:
    with pytest.raises(PortLayerError, match="refused"):
        async with engine.anonymous.of(ID, ["volume"]):
            host.volumes["volume"] = pb.Volume(name="volume", anonymous=True)
            raise PortLayerError("refused", status=409)
    assert (list(host.volumes), list(host.keys)) == ([], [])
