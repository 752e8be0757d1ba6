"""The port layer's client: reasons become status codes, a dead port layer is an error in time, never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.rpc import PortLayer, PortLayerError, PortLayerUnavailable
from engine.rpc.errors import _STATUS
from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api as Client
from tests.engine.conftest import Images, running_engine
from tests.engine.fake.services import serving
from tests.engine.fake.state import FakeHost
from tether import tether_pb2
from vch.config import VchConfig


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[PortLayer]:
    made = PortLayer(tmp_path / "portlayer.sock")
    yield made
    await made.close()


def test_every_reason_has_a_status() -> None:
    assert set(_STATUS) == set(pb.Reason.values()) - {pb.UNSPECIFIED}


async def test_reasons_and_exit_codes_arrive(port: PortLayer, tmp_path: Path) -> None:
    async with serving(FakeHost(), tmp_path / "portlayer.sock"):
        with pytest.raises(PortLayerError) as caught:
            await port.call(port.containers.Get, pb.ContainerRef(id="x"))
        assert (caught.value.reason, caught.value.status) == (pb.NO_SUCH_CONTAINER, 404)
        spec = pb.ContainerSpec(name="box", process=tether_pb2.Process(argv=["missing"]))
        await port.call(port.containers.Commit, pb.Handle(id="x", spec=spec))
        with pytest.raises(PortLayerError) as caught:
            await port.call(port.containers.Start, pb.ContainerRef(id="x"))
        assert (caught.value.reason, caught.value.exit_code) == (pb.LAUNCH_FAILED, 127)


async def test_dead_port_layer_is_a_503_in_time(port: PortLayer) -> None:
    started = time.monotonic()
    with pytest.raises(PortLayerUnavailable, match="does not answer") as caught:
        await port.call(port.containers.Get, pb.ContainerRef(id="x"), patience=0.2)
    assert caught.value.status == 503
    assert time.monotonic() - started < 3


async def test_call_waits_for_a_port_layer_that_is_just_starting(port: PortLayer, tmp_path: Path) -> None:
    call = asyncio.create_task(port.call(port.containers.List, pb.ListContainersRequest()))
    await asyncio.wait({call}, timeout=0.3)
    async with serving(FakeHost(), tmp_path / "portlayer.sock"):
        assert list((await call).containers) == []


async def test_channel_survives_a_restart(port: PortLayer, tmp_path: Path) -> None:
    host = FakeHost()
    for _ in range(3):
        async with serving(host, tmp_path / "portlayer.sock"):
            reply = await port.call(port.containers.List, pb.ListContainersRequest(), idempotent=True)
            assert list(reply.containers) == []


async def test_streams_and_sessions_end_with_the_port_layer(port: PortLayer, tmp_path: Path) -> None:
    with pytest.raises(PortLayerError):
        async with serving(FakeHost(), tmp_path / "portlayer.sock"):
            events = port.stream(port.system.Events, pb.EventsSubscription())
            assert (await anext(events)).ready
        await anext(events)


async def test_refused_upload_says_why_and_reads_no_further(port: PortLayer, tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[pb.CopyInChunk]:
        nonlocal sent
        yield pb.CopyInChunk(id="x", path=b"/missing")
        while True:
            sent += 1
            yield pb.CopyInChunk(data=bytes(100_000))

    async with serving(FakeHost(), tmp_path / "portlayer.sock"):
        with pytest.raises(PortLayerError) as caught:
            await port.upload(port.interaction.CopyIn, endless())
        assert caught.value.reason == pb.NO_SUCH_PATH
        assert sent < 1000


async def test_upload_whose_source_fails_is_cancelled(port: PortLayer, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[pb.CopyInChunk]:
        yield pb.CopyInChunk(id="x", path=b"/srv")
        raise RuntimeError("source failed")

    host = FakeHost()
    async with serving(host, tmp_path / "portlayer.sock"):
        with pytest.raises(RuntimeError, match="source failed"):
            await port.upload(port.interaction.CopyIn, broken())


async def test_engine_answers_while_the_port_layer_is_down_and_after(
    config: VchConfig, images: Images
) -> None:
    host = FakeHost()
    client = Client(config.paths.docker_socket)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(serving(host, config.paths.portlayer_socket))
        await stack.enter_async_context(running_engine(config, images))
        container = await client.create(name="web")
        await first.aclose()
        assert (await client("GET", "/_ping")).status == 200
        assert (await client("GET", "/version")).json["Components"][0]["Name"] == "Engine"
        reply = await client("GET", "/containers/json")
        assert (reply.status, "does not answer" in reply.message) == (503, True)
        await stack.enter_async_context(serving(host, config.paths.portlayer_socket))
        assert (await client("GET", "/containers/web/json")).json["Id"] == container
        await client.close()
