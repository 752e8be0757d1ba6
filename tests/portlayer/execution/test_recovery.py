"""A port layer that is killed at any moment: the next one finds everything as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from portlayer.execution.record import Intent, Record
from portlayer.execution.states import Status
from portlayer.hypervisor.base import PowerState
from portlayer.journal.verdict import journal_end
from portlayer.portlayer_pb2 import (
    ContainerEvent,
    Endpoint,
    PortBinding,
    RestartPolicy,
    StopRequest,
    WaitRequest,
)
from tests.portlayer.fakes.network import NETWORK
from tests.portlayer.world import World, always
from tether.journal import Kind
from tether.tether_pb2 import Event, HealthCheck, HealthEvent, MainState

ID = "1" * 64


async def again(world: World) -> None:
    await world.crash()
    await world.boot()


def record(world: World) -> Record:
    return Record.from_extra(world.vm(ID).config.extra)


async def save(world: World, **changes: object) -> None:
    """Leave the VM's documents as they are in the middle of something."""
    vm = world.vm(ID)
    vm.config = replace(vm.config, extra=replace(record(world), **changes).to_extra())


async def test_a_created_container_is_created(world: World) -> None:
    await world.create(ID)
    before = world.execution.open_handle(ID)
    await again(world)
    assert world.execution.get(ID).status is Status.CREATED
    assert world.execution.open_handle(ID) == before
    await world.execution.start(ID)


async def test_a_running_container_ran_on(world: World) -> None:
    port = PortBinding(container_port=80, protocol="tcp")
    await world.running(ID, ports=[port], health=HealthCheck(test=["true"]))
    before = world.execution.get(ID).state()
    spec = world.execution.get(ID).spec
    await again(world)
    container = world.execution.get(ID)
    after = container.state()
    assert container.status is Status.RUNNING
    assert (after.started_at, after.pid) == (before.started_at, before.pid)
    assert container.spec == spec
    assert world.network.opened[0].running
    assert world.network.opened[0].ports[0].assigned_port == spec.ports[0].assigned_port
    assert world.network.taps
    await world.execution.stop(StopRequest(id=ID, timeout=5))
    assert world.execution.get(ID).state().exit_code == 143


async def test_what_the_guest_says_after_the_restart_is_heard(world: World) -> None:
    await world.running(ID, health=HealthCheck(test=["true"]))
    world.guest(ID).publish(Event(health=HealthEvent(status=HealthEvent.HEALTHY)))
    await again(world)
    exit_ = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    world.guest(ID).exit(9)
    assert (await exit_).exit_code == 9
    assert world.execution.get(ID).health.status == HealthEvent.UNHEALTHY


async def test_old_health_is_known_again_without_being_news(world: World) -> None:
    await world.running(ID, health=HealthCheck(test=["true"]))
    world.guest(ID).publish(Event(health=HealthEvent(status=HealthEvent.HEALTHY)))
    await again(world)
    world.guest(ID).publish(Event(health=HealthEvent(status=HealthEvent.UNHEALTHY)))
    while True:
        event = await world.next_event()
        if event.container.kind == ContainerEvent.HEALTH:
            break
    assert event.container.state.health == HealthEvent.UNHEALTHY


async def test_a_container_that_ended_meanwhile_has_its_exit_code(world: World) -> None:
    await world.running(ID, ports=[PortBinding(container_port=80, protocol="tcp")])
    await world.crash()
    world.guest(ID).exit(7, oom=True)
    await world.boot()
    state = world.execution.get(ID).state()
    assert (state.exit_code, state.oom_killed) == (7, True)
    assert world.execution.get(ID).status is Status.EXITED
    assert record(world).intent is Intent.STOPPED
    assert record(world).state.exit_code == 7
    assert not world.network.taps
    assert not world.network.ports


async def test_a_vm_that_vanished_meanwhile_has_137_and_a_reason(world: World) -> None:
    await world.running(ID)
    await world.crash()
    world.guest(ID).crash()
    await world.boot()
    state = world.execution.get(ID).state()
    assert state.exit_code == 137
    assert "while the port layer was down" in state.error


async def test_a_launch_that_failed_meanwhile_is_a_failed_launch(world: World) -> None:
    await world.running(ID)
    await world.execution.kill(ID, 9)
    inode, size = journal_end(world.vm(ID).journal)
    await save(
        world,
        intent=Intent.RUNNING,
        state=replace(record(world).state, mark=replace(record(world).state.mark, inode=inode, size=size)),
    )
    guest = world.guest(ID)
    guest.boot()
    failed = MainState(state=MainState.FAILED, exit_code=126, error="permission denied")
    guest.write(Kind.FAILED, failed.SerializeToString())
    await again(world)
    state = world.execution.get(ID).state()
    assert (state.exit_code, state.error) == (126, "permission denied")
    assert world.execution.get(ID).status is Status.EXITED


async def test_a_start_that_never_got_its_power_is_forgotten(world: World) -> None:
    await world.running(ID)
    await world.execution.kill(ID, 9)
    mark = record(world).state.mark
    inode, size = journal_end(world.vm(ID).journal)
    await save(
        world,
        intent=Intent.RUNNING,
        state=replace(record(world).state, mark=replace(mark, inode=inode, size=size)),
    )
    await again(world)
    container = world.execution.get(ID)
    assert container.status is Status.EXITED
    assert container.state().exit_code == 137
    assert record(world).intent is Intent.STOPPED


async def test_a_first_start_that_never_got_its_power_leaves_it_created(world: World) -> None:
    await world.create(ID)
    await save(world, intent=Intent.RUNNING)
    await again(world)
    assert world.execution.get(ID).status is Status.CREATED
    assert record(world).intent is Intent.CREATED
    await world.execution.start(ID)


async def test_a_vm_in_its_boot_is_starting_and_gets_there(world: World) -> None:
    world.script = lambda guest: guest.boot()
    await world.create(ID)
    task = world.execution.house.complete(world.execution._power.start(world.execution.get(ID)))
    import asyncio

    start = asyncio.create_task(task)
    while world.vm(ID).guest is None:
        await asyncio.sleep(0)
    await world.crash()
    start.cancel()
    await world.boot()
    assert world.execution.get(ID).status is Status.STARTING
    guest = world.guest(ID)
    guest.state = MainState(state=MainState.RUNNING, started_at=world.clock.now())
    guest.write(Kind.STARTED, guest.state.SerializeToString())
    await world.execution.get(ID).moved()
    assert world.execution.get(ID).status is Status.RUNNING


async def test_a_paused_container_stays_paused(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    await again(world)
    assert world.execution.get(ID).status is Status.PAUSED
    await world.execution.unpause(ID)
    assert world.execution.get(ID).status is Status.RUNNING


async def test_a_rotated_journal_does_not_hide_that_it_runs(world: World) -> None:
    await world.running(ID)
    container = world.execution.get(ID)
    async with container.lock:
        await world.execution._power.supervisor._unmark(container)
        await world.hypervisor.rotate_journal(ID, keep=0)
    started = container.state().started_at
    await again(world)
    assert world.execution.get(ID).status is Status.RUNNING
    assert world.execution.get(ID).state().started_at == started


@pytest.mark.parametrize("power", [PowerState.OFF, PowerState.ON])
async def test_a_removal_is_finished(world: World, power: PowerState) -> None:
    await world.running(ID)
    if power is PowerState.OFF:
        await world.execution.kill(ID, 9)
    await save(world, intent=Intent.REMOVING)
    await again(world)
    assert not world.hypervisor.vms
    assert not world.disks.disks
    assert world.execution.list() == []
    await world.create(ID)


REMOVAL = [
    "hypervisor.configure",
    "hypervisor.power_off",
    "network.unplug",
    "disks.remove",
    "hypervisor.delete",
]


@pytest.mark.parametrize("step", range(len(REMOVAL)))
async def test_a_removal_that_is_cut_off_at_any_step_is_finished(world: World, step: int) -> None:
    await world.create(ID)
    world.faults.start(fail_at=step)
    with pytest.raises(Exception, match="injected"):
        await world.execution.remove(ID, force=False)
    assert world.faults.calls[-1] == REMOVAL[step]
    world.faults.start()
    assert world.execution.get(ID).status is Status.DEAD
    await again(world)
    if step == 0:  # the intent was not durable: the container is what it was
        assert world.execution.get(ID).status is Status.CREATED
        await world.execution.remove(ID, force=False)
    assert not world.hypervisor.vms
    assert not world.disks.disks


async def test_a_disk_without_a_vm_is_swept(world: World) -> None:
    world.disks.disks["f" * 64] = {}
    await again(world)
    assert not world.disks.disks


@pytest.mark.parametrize(
    "damage",
    [
        lambda extra: extra.pop("container"),
        lambda extra: extra.update(container=b"\xff\xff\xff"),
        lambda extra: extra.update(intent=b"dancing"),
        lambda extra: extra.update(state=b"[]"),
        lambda extra: extra.update(state=b'{"revision": "one"}'),
        lambda extra: extra.update(state=b'{"unknown": 1}'),
    ],
)
async def test_an_unreadable_record_makes_a_dead_container_that_can_be_removed(
    world: World, damage: Callable[[dict[str, bytes]], object]
) -> None:
    await world.create(ID)
    extra = dict(world.vm(ID).config.extra)
    damage(extra)
    world.vm(ID).config = replace(world.vm(ID).config, extra=extra)
    await again(world)
    assert world.execution.get(ID).status is Status.DEAD
    assert "cannot be read" in world.execution.get(ID).state().error
    await world.execution.remove(ID, force=True)
    assert not world.hypervisor.vms


async def test_names_are_known_again(world: World) -> None:
    await world.create(ID, name="web")
    await again(world)
    with pytest.raises(Exception, match="already in use"):
        await world.create(name="web")


async def test_a_static_address_of_a_stopped_container_is_free(world: World) -> None:
    await world.running(ID, endpoints=[Endpoint(network=NETWORK, ipv4="172.30.0.9")])
    await world.execution.kill(ID, 9)
    await again(world)
    assert not world.network.leases


# ---------------------------------------------------------------- restart policies at start-up


@pytest.mark.parametrize(
    ("policy", "stopped_by_user", "code", "starts"),
    [
        (RestartPolicy.NO, False, 1, False),
        (RestartPolicy.ALWAYS, False, 0, True),
        (RestartPolicy.ALWAYS, True, 0, True),
        (RestartPolicy.UNLESS_STOPPED, False, 0, True),
        (RestartPolicy.UNLESS_STOPPED, True, 0, False),
        (RestartPolicy.ON_FAILURE, False, 0, False),
        (RestartPolicy.ON_FAILURE, False, 1, True),
    ],
)
async def test_policies_are_asked_once_at_start_up(
    world: World, policy: RestartPolicy.Condition.ValueType, stopped_by_user: bool, code: int, starts: bool
) -> None:
    await world.running(ID, restart=always(policy))
    if stopped_by_user:
        world.guest(ID).answers["Signal"] = lambda request: world.guest(ID).exit(code)
        await world.execution.stop(StopRequest(id=ID, timeout=1))
        await world.crash()
    else:
        await world.crash()
        world.guest(ID).exit(code)
    await world.boot()
    container = world.execution.get(ID)
    assert container.status is Status.EXITED
    world.execution.start_policies()
    if starts:
        while container.status is not Status.RUNNING:
            await container.moved()
    else:
        assert not world.execution.house._background


async def test_a_container_that_was_never_started_is_not_started(world: World) -> None:
    await world.create(ID, restart=always())
    await again(world)
    world.execution.start_policies()
    assert not world.execution.house._background


@pytest.mark.parametrize("plugged", [["kept", "stray"], []], ids=["connect", "disconnect"])
@pytest.mark.parametrize("known", [["kept", "stray"], ["kept"], []], ids=" and ".join)
async def test_a_change_of_networks_that_was_cut_short_is_taken_back(
    world: World, plugged: list[str], known: list[str]
) -> None:
    """Killed between the hot-plug, the VM's configuration and the record: the record is the truth."""
    await world.running(ID)
    await world.crash()
    vm = world.vm(ID)
    (nic,) = vm.config.nics
    nics = {"kept": nic, "stray": replace(nic, id="mtstray", mac="02:00:00:00:00:99")}
    vm.config = replace(vm.config, nics=[nics[name] for name in known])
    vm.plugged_nics = {nics[name].id for name in plugged}
    await world.boot()
    while not world.guest(ID).network_sets or world.execution.get(ID).lock.locked():
        await asyncio.sleep(0)
    assert list(vm.config.nics) == [nic]
    assert vm.plugged_nics == {nic.id}
    (told,) = world.guest(ID).network_sets
    assert [interface.mac for interface in told.interfaces] == [nic.mac]


async def test_a_running_container_whose_nics_are_right_is_left_alone(world: World) -> None:
    await world.running(ID)
    await again(world)
    await world.execution.stop(StopRequest(id=ID, timeout=1))
    assert "hypervisor.add_nic" not in world.faults.calls
    assert "hypervisor.remove_nic" not in world.faults.calls
