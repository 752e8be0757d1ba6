"""The disk of a container at one moment: diff and commit of stopped and running containers."""

from __future__ import annotations

import pytest

from portlayer.channel import TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.picture import disk_of
from portlayer.execution.states import Status
from portlayer.portlayer_pb2 import ContainerEvent, Reason
from tests.portlayer.execution.test_power import events_until
from tests.portlayer.fakes.faults import Injected
from tests.portlayer.world import World
from tether.wire import Code

ID = "1" * 64


async def changes(world: World, *, pause: bool = False) -> bytes:
    return b"".join([data async for data in world.execution.export_changes(ID, pause=pause)])


async def test_a_stopped_containers_own_disk_is_read_and_it_cannot_start_meanwhile(world: World) -> None:
    await world.create(ID)
    container = world.execution.get(ID)
    async with disk_of(world.execution.house, world.execution._power, container, call="x") as picture:
        assert picture is None
        assert container.lock.locked()
    assert await changes(world) == b"of the disk"


async def test_a_running_containers_disk_is_copied_while_its_guest_holds_still(world: World) -> None:
    await world.running(ID)
    container = world.execution.get(ID)
    async with disk_of(world.execution.house, world.execution._power, container, call="x") as picture:
        assert picture is not None
        assert not world.guest(ID).frozen  # long before the copy is done with
        assert world.disks.pictures == [ID]
        assert not container.lock.locked()
    assert world.disks.pictures == []
    assert world.channel(ID).calls.count("Freeze") == world.channel(ID).calls.count("Thaw") == 1
    assert await changes(world) == b"of a picture"
    assert container.status is Status.RUNNING


async def test_with_pause_no_process_runs_while_the_disk_is_copied(world: World) -> None:
    await world.running(ID)
    assert await changes(world, pause=True) == b"of a picture"
    seen = await events_until(world, ContainerEvent.UNPAUSED)
    assert seen[-2:] == ["PAUSED", "UNPAUSED"]
    assert world.execution.get(ID).status is Status.RUNNING
    assert not world.guest(ID).frozen


async def test_a_copy_that_fails_leaves_the_container_running(world: World) -> None:
    await world.running(ID)
    world.faults.fail_on["disks.picture"] = Injected("full")
    with pytest.raises(Injected):
        await changes(world, pause=True)
    assert world.execution.get(ID).status is Status.RUNNING
    assert not world.guest(ID).frozen


async def test_a_container_that_is_just_ending_is_read_when_it_has_ended(world: World) -> None:
    await world.running(ID)

    def too_late(_: object) -> None:
        world.guest(ID).exit(0)
        raise TetherError(Code.FAILED_PRECONDITION, "container is not running")

    world.guest(ID).answers["Freeze"] = too_late
    assert await changes(world) == b"of the disk"
    assert world.execution.get(ID).status is Status.EXITED


async def test_a_paused_container_is_refused(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    with pytest.raises(PortLayerError) as caught:
        await changes(world)
    assert caught.value.reason == Reason.PAUSED
