"""Removing containers."""

from __future__ import annotations

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.states import Status
from portlayer.portlayer_pb2 import ContainerEvent, Reason
from tests.portlayer.world import World, mount

ID = "1" * 64


async def test_a_stopped_container_goes_with_everything(world: World) -> None:
    await world.running(ID)
    await world.execution.kill(ID, 9)
    await world.execution.remove(ID, force=False)
    assert not world.hypervisor.vms
    assert not world.disks.disks
    assert not world.network.leases
    with pytest.raises(PortLayerError) as caught:
        world.execution.get(ID)
    assert caught.value.reason == Reason.NO_SUCH_CONTAINER
    while (event := await world.next_event()).container.kind != ContainerEvent.REMOVED:
        pass
    assert event.container.id == ID
    await world.create(ID)


async def test_a_running_container_is_not_removed_without_force(world: World) -> None:
    await world.running(ID)
    with pytest.raises(PortLayerError, match="it is running") as caught:
        await world.execution.remove(ID, force=False)
    assert caught.value.reason == Reason.ALREADY_RUNNING
    assert world.execution.get(ID).status is Status.RUNNING


async def test_by_force_its_process_is_killed_so_that_volumes_are_synced(world: World) -> None:
    await world.running(ID, mounts=[mount()])
    guest = world.guest(ID)
    await world.execution.remove(ID, force=True)
    assert guest.signals == [9]
    assert not world.hypervisor.vms


async def test_a_paused_container_is_removed_by_force(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    await world.execution.remove(ID, force=True)
    assert not world.hypervisor.vms


async def test_a_removal_that_fails_leaves_a_dead_container_that_can_be_removed_again(world: World) -> None:
    await world.create(ID)
    world.faults.fail_on["disks.remove"] = PortLayerError(Reason.NO_SPACE, "disk full")
    with pytest.raises(PortLayerError, match="disk full"):
        await world.execution.remove(ID, force=False)
    assert world.execution.get(ID).status is Status.DEAD
    with pytest.raises(PortLayerError) as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.REMOVAL_IN_PROGRESS
    del world.faults.fail_on["disks.remove"]
    await world.execution.remove(ID, force=False)
    assert not world.hypervisor.vms
