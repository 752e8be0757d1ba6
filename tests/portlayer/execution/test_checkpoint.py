"""Checkpoints: what they refuse, what becomes of the container, and going on from one."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.states import Status
from portlayer.portlayer_pb2 import CheckpointRequest, ContainerEvent, ContainerState, Reason
from tests.portlayer.world import World, always, mount

ID = "1" * 64


def request(name: str = "first", *, leave_running: bool = False) -> CheckpointRequest:
    return CheckpointRequest(id=ID, name=name, leave_running=leave_running)


async def test_a_checkpoint_ends_the_container_and_its_restart_policy(world: World) -> None:
    await world.running(ID, restart=always())
    await world.execution.checkpoint(request())
    state = world.execution.get(ID).state()
    assert (state.status, state.exit_code, state.error) == (ContainerState.EXITED, 137, "")
    assert await world.execution.checkpoints(ID) == ["first"]


async def test_a_container_that_is_left_running_gets_its_clock_back(world: World) -> None:
    await world.running(ID)
    guest = world.guest(ID)
    before = len(guest.times)
    await world.execution.checkpoint(request(leave_running=True))
    assert world.execution.get(ID).status is Status.RUNNING
    assert len(guest.times) == before + 1


async def test_it_goes_on_from_a_checkpoint(world: World) -> None:
    await world.running(ID)
    await world.execution.checkpoint(request())
    state = await world.execution.start(ID, checkpoint="first")
    assert state.status == ContainerState.RUNNING
    assert state.started_at > 1, "our clock, not the guest's old one"
    while not world.guest(ID).seeds:
        await asyncio.sleep(0)
    await world.execution.kill(ID, 9)
    assert world.execution.get(ID).state().exit_code == 137


async def test_a_new_port_layer_knows_that_it_runs(world: World) -> None:
    await world.running(ID)
    await world.execution.checkpoint(request())
    await world.execution.start(ID, checkpoint="first")
    await world.crash()
    await world.boot()
    assert world.execution.get(ID).status is Status.RUNNING
    await world.crash()
    world.guest(ID).crash()
    await world.boot()
    assert world.execution.get(ID).state().exit_code == 137


async def test_refusals(world: World) -> None:
    await world.create(ID)
    with pytest.raises(PortLayerError) as caught:
        await world.execution.checkpoint(request())
    assert caught.value.reason == Reason.NOT_RUNNING
    await world.execution.start(ID)
    await world.execution.checkpoint(request(leave_running=True))
    with pytest.raises(PortLayerError, match="already exists") as caught:
        await world.execution.checkpoint(request())
    assert caught.value.reason == Reason.NAME_IN_USE
    assert world.execution.get(ID).status is Status.RUNNING
    await world.execution.kill(ID, 9)
    for call in (
        world.execution.start(ID, checkpoint="no"),
        world.execution.remove_checkpoint(request("no")),
    ):
        with pytest.raises(PortLayerError, match="checkpoint no does not exist") as caught:
            await call
        assert caught.value.reason == Reason.NO_SUCH_CHECKPOINT
    await world.execution.remove_checkpoint(request())
    assert await world.execution.checkpoints(ID) == []


async def test_a_writable_volume_is_not_turned_back(world: World) -> None:
    await world.running(ID, mounts=[mount()])
    with pytest.raises(PortLayerError, match="writes to volume data"):
        await world.execution.checkpoint(request())
    assert world.execution.get(ID).status is Status.RUNNING


async def test_a_failed_checkpoint_leaves_the_restart_policy(world: World) -> None:
    await world.running(ID, restart=always())
    world.faults.start(fail_at=0)
    with pytest.raises(Exception, match="injected"):
        await world.execution.checkpoint(request())
    world.faults.start()
    world.guest(ID).exit(1)
    while (event := await world.next_event()).container.kind != ContainerEvent.RESTARTING:
        assert event
