"""Execs over the channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from portlayer.channel import ChannelClosed, TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.states import Status
from portlayer.interaction.execs import exec_inspect, exec_list, run_exec
from portlayer.portlayer_pb2 import ExecOpen, InputChunk, OutputChunk, Reason
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.world import World
from tether.tether_pb2 import AttachOutput, Event, ExecState, Process
from tether.wire import Code

ID = "1" * 64


async def no_input() -> AsyncIterator[InputChunk]:
    return
    yield InputChunk()


def start(world: World, *argv: str, inputs: Any = None, **fields: Any) -> Any:
    fields = {"stdout": True, "stderr": True} | fields
    opening = ExecOpen(id=ID, exec_id="e1", process=Process(argv=argv or ["true"]), **fields)
    return run_exec(world.execution.house, world.execution.get(ID), opening, inputs or no_input())


def say(guest: FakeGuest, *frames: AttachOutput) -> None:
    guest.exec_output.setdefault("e1", []).extend(frames)
    guest.stir()


def out(data: bytes, offset: int, stream: Any = AttachOutput.STDOUT) -> AttachOutput:
    return AttachOutput(stream=stream, data=data, offset=offset)


def ended(code: int) -> AttachOutput:
    return AttachOutput(stream=AttachOutput.EXITED, exit=ExecState(exec_id="e1", exit_code=code))


async def test_output_and_exit_code(world: World) -> None:
    await world.running(ID)
    stream = start(world)
    ready = await anext(stream)
    assert (ready.stream, ready.pid) == (OutputChunk.READY, 99)
    say(world.guest(ID), out(b"o", 0), out(b"e", 0, AttachOutput.STDERR), ended(4))
    assert [(c.stream, c.data, c.exit_code) async for c in stream] == [
        (OutputChunk.STDOUT, b"o", 0),
        (OutputChunk.STDERR, b"e", 0),
        (OutputChunk.EXITED, b"", 4),
    ]


async def test_a_lost_connection_resumes_by_offset(world: World) -> None:
    await world.running(ID)
    stream = start(world)
    await anext(stream)
    say(world.guest(ID), out(b"one", 0))
    assert (await anext(stream)).data == b"one"
    world.channel(ID).cut()
    say(world.guest(ID), out(b"two", 3), ended(0))
    assert [c.data async for c in stream] == [b"two", b""]


async def test_detached_the_stream_ends_at_once(world: World) -> None:
    await world.running(ID)
    assert [c.stream async for c in start(world, detach=True)] == [OutputChunk.READY]


async def test_input_reaches_the_exec(world: World) -> None:
    async def inputs() -> AsyncIterator[InputChunk]:
        yield InputChunk(data=b"in")
        yield InputChunk(data=b"put", close=True)

    await world.running(ID)
    stream = start(world, inputs=inputs(), stdin=True)
    await anext(stream)
    drain = asyncio.ensure_future(anext(stream))
    guest = world.guest(ID)
    while not guest.stdin_closed:
        await guest.news.wait()
    assert guest.stdin == b"input"
    say(guest, ended(0))
    assert (await drain).stream == OutputChunk.EXITED


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [(Code.NOT_FOUND, 127), (Code.PERMISSION_DENIED, 126), (Code.INVALID_ARGUMENT, 128)],
)
async def test_a_command_that_cannot_be_started(world: World, code: Code, exit_code: int) -> None:
    await world.running(ID)
    world.guest(ID).answers["Exec"] = TetherError(code, "words of the guest")
    with pytest.raises(PortLayerError, match="words of the guest") as caught:
        await anext(start(world))
    assert (caught.value.reason, caught.value.exit_code) == (Reason.LAUNCH_FAILED, exit_code)


async def test_execs_need_a_running_container(world: World) -> None:
    await world.create(ID)
    with pytest.raises(PortLayerError) as caught:
        await anext(start(world))
    assert caught.value.reason == Reason.NOT_RUNNING
    await world.execution.start(ID)
    await world.execution.pause(ID)
    with pytest.raises(PortLayerError) as caught:
        await anext(start(world))
    assert caught.value.reason == Reason.PAUSED


async def test_the_end_of_the_container_ends_its_execs(world: World) -> None:
    await world.running(ID)
    stream = start(world)
    await anext(stream)
    rest = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    world.guest(ID).crash()
    chunk = await rest
    assert (chunk.stream, chunk.exit_code) == (OutputChunk.EXITED, 137)


async def test_inspect_knows_running_and_ended_ones(world: World) -> None:
    await world.running(ID)
    house, container = world.execution.house, world.execution.get(ID)
    await anext(start(world))
    assert (await exec_inspect(house, container, "e1")).running
    world.guest(ID).publish(Event(exec=ExecState(exec_id="e1", exit_code=5)))
    while "e1" not in container.execs:
        await asyncio.sleep(0)
    assert (await exec_inspect(house, container, "e1")).exit_code == 5
    await world.execution.kill(ID, 9)
    assert [state.exec_id for state in (await exec_list(house, container)).execs] == ["e1"]
    with pytest.raises(PortLayerError) as caught:
        await exec_inspect(house, container, "no")
    assert caught.value.reason == Reason.NO_SUCH_EXEC


async def test_a_container_that_is_just_ending_can_be_asked(world: World) -> None:
    await world.running(ID)
    house, container = world.execution.house, world.execution.get(ID)
    async with container.lock:  # the VM is off, and not settled yet
        world.guest(ID).exit(0)
        with pytest.raises(ChannelClosed):
            while True:
                await container.run.channel.ready()
                await asyncio.sleep(0)
        assert container.status is Status.RUNNING
        assert list((await exec_list(house, container)).execs) == []


async def test_ended_execs_are_remembered_within_bounds(world: World) -> None:
    await world.running(ID)
    container = world.execution.get(ID)
    for number in range(300):
        world.guest(ID).publish(Event(exec=ExecState(exec_id=f"x{number}")))
    world.guest(ID).publish(Event(exec=ExecState(exec_id="y" * 10_000)))
    while "x299" not in container.execs:
        await asyncio.sleep(0)
    assert len(container.execs) == 256
    assert "y" * 10_000 not in container.execs
