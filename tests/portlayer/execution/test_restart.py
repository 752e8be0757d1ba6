"""Restart policies, by Docker's rules, with time in the test's hands."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.execution.restart import Backoff, at_exit
from portlayer.execution.states import Status
from portlayer.hypervisor.base import PowerState
from portlayer.portlayer_pb2 import ContainerState, RestartPolicy, StopRequest, WaitRequest
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.world import World, always

ID = "1" * 64


def test_delays_double_to_a_minute_and_a_stable_run_resets_them() -> None:
    backoff = Backoff()
    delays = [backoff.after_run(1) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert backoff.after_run(10) == 0.1


@pytest.mark.parametrize(
    ("condition", "retries", "code", "count", "cancelled", "again"),
    [
        (RestartPolicy.NO, 0, 1, 0, False, False),
        (RestartPolicy.ALWAYS, 0, 0, 99, False, True),
        (RestartPolicy.ALWAYS, 0, 0, 0, True, False),
        (RestartPolicy.UNLESS_STOPPED, 0, 1, 0, False, True),
        (RestartPolicy.ON_FAILURE, 0, 1, 99, False, True),
        (RestartPolicy.ON_FAILURE, 0, 0, 0, False, False),
        (RestartPolicy.ON_FAILURE, 2, 1, 1, False, True),
        (RestartPolicy.ON_FAILURE, 2, 1, 2, False, False),
    ],
)
def test_the_table(
    condition: RestartPolicy.Condition.ValueType,
    retries: int,
    code: int,
    count: int,
    cancelled: bool,
    again: bool,
) -> None:
    policy = RestartPolicy(condition=condition, maximum_retries=retries)
    assert at_exit(policy, exit_code=code, restart_count=count, cancelled=cancelled) is again


def failing(guest: FakeGuest) -> None:
    guest.run()
    guest.exit(1)


async def reach(world: World, status: Status) -> None:
    container = world.execution.get(ID)
    while container.status is not status:
        await container.moved()


async def test_a_failing_container_is_restarted_with_growing_delays_until_the_limit(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always(RestartPolicy.ON_FAILURE, 3))
    await world.execution.start(ID)
    delays = [await world.clock.slept() for _ in range(3)]
    assert delays == [0.1, 0.2, 0.4]
    await reach(world, Status.EXITED)
    assert world.execution.get(ID).state().restart_count == 3


async def test_while_it_waits_it_is_restarting_and_counts_as_running(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always())
    next_exit = world.execution.arm_wait(ID, WaitRequest.NEXT_EXIT)
    await world.execution.start(ID)
    await reach(world, Status.RESTARTING)
    assert (await next_exit).exit_code == 1
    assert not world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING).done()


async def test_stop_ends_the_waiting(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always())
    await world.execution.start(ID)
    await reach(world, Status.RESTARTING)
    not_running = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    state = await world.execution.stop(StopRequest(id=ID, timeout=1))
    assert state.status == ContainerState.EXITED
    assert (await not_running).exit_code == 1
    assert world.execution.get(ID).record.state.manual_stop


async def test_a_stop_that_comes_as_the_delay_ends_has_the_last_word(world: World) -> None:
    """Both wait for the container's lock, the stop first: the restart must find that it is not wanted."""
    world.script = failing
    await world.create(ID, restart=always())
    await world.execution.start(ID)
    await reach(world, Status.RESTARTING)
    container = world.execution.get(ID)
    restart = container.restart_task
    assert restart is not None
    async with container.lock:
        stop = asyncio.create_task(world.execution.stop(StopRequest(id=ID, timeout=1)))
        while not container.lock._waiters:
            await asyncio.sleep(0)
        await world.clock.slept()
        while container.restart_task is not None:
            await asyncio.sleep(0)
    await stop
    await restart
    assert container.status is Status.EXITED
    assert world.vm(ID).power is PowerState.OFF


async def test_a_stopped_container_is_not_restarted(world: World) -> None:
    await world.running(ID, restart=always())
    await world.execution.stop(StopRequest(id=ID, timeout=1))
    assert world.execution.get(ID).status is Status.EXITED
    assert world.clock.sleeps == []


async def test_a_killed_container_is_not_restarted(world: World) -> None:
    await world.running(ID, restart=always())
    await world.execution.kill(ID, 9)
    assert world.execution.get(ID).status is Status.EXITED


async def test_a_signal_that_is_not_the_stop_signal_does_not_cancel_the_policy(world: World) -> None:
    await world.running(ID, restart=always(), stop_signal=15)
    await world.execution.kill(ID, 1)
    await reach(world, Status.RESTARTING)


async def test_a_manual_start_forgets_the_count(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always(RestartPolicy.ON_FAILURE, 1))
    await world.execution.start(ID)
    await world.clock.slept()
    await reach(world, Status.EXITED)
    world.script = lambda guest: guest.run()
    await world.execution.start(ID)
    assert world.execution.get(ID).state().restart_count == 0


async def test_an_automatic_start_that_fails_ends_the_attempts(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always())
    await world.execution.start(ID)
    world.script = lambda guest: guest.fail(127, "gone")
    not_running = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    await reach(world, Status.RESTARTING)
    await world.clock.slept()
    await reach(world, Status.EXITED)
    await not_running
    assert world.execution.get(ID).state().error == "gone"


async def test_a_restarting_container_can_be_removed_by_force(world: World) -> None:
    world.script = failing
    await world.create(ID, restart=always())
    await world.execution.start(ID)
    await reach(world, Status.RESTARTING)
    await world.execution.remove(ID, force=True)
    assert not world.hypervisor.vms
