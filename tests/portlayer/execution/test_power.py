"""Start, stop, kill, pause and what the guest may do meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.house import Timeouts
from portlayer.execution.record import Intent, Record
from portlayer.execution.states import Status
from portlayer.hypervisor.base import PowerState
from portlayer.portlayer_pb2 import (
    ContainerEvent,
    ContainerState,
    PortBinding,
    Reason,
    StopRequest,
    WaitRequest,
)
from tests.portlayer.fakes.faults import Injected
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.world import World, mount
from tether.tether_pb2 import BootConfig, Event, ExecState, HealthCheck, HealthEvent, OomEvent, Resources

ID = "1" * 64
PORT = PortBinding(container_port=80, protocol="tcp", host_port=8080)


def patience(world: World, **seconds: float) -> None:
    world.execution.house.timeouts = Timeouts(
        **{"boot": 30, "power_off": 30, "call": 30, "signal": 30} | seconds
    )


async def events_until(world: World, kind: ContainerEvent.Kind.ValueType) -> list[str]:
    seen = []
    while True:
        event = await world.next_event()
        if event.HasField("container"):
            seen.append(ContainerEvent.Kind.Name(event.container.kind))
            if event.container.kind == kind:
                return seen


# ---------------------------------------------------------------- start


async def test_start_returns_when_the_process_runs(world: World) -> None:
    await world.create(ID)
    state = await world.execution.start(ID)
    assert state.status == ContainerState.RUNNING
    assert state.pid == 4242
    assert state.started_at > 0
    assert await events_until(world, ContainerEvent.STARTED) == ["CREATED", "STARTED"]


async def test_the_guest_gets_its_whole_configuration(world: World) -> None:
    await world.running(
        ID, hostname="web", mounts=[mount(), mount("other", "/ro", read_only=True)], ports=[PORT]
    )
    boot = BootConfig.FromString(world.vm(ID).config.boot_config)
    assert boot.id == ID
    assert boot.root.serial == "root"
    assert [m.destination for m in boot.mounts] == ["/data", "/ro"]
    assert [m.copy_up for m in boot.mounts] == [True, False]
    assert {m.disk.serial for m in boot.mounts} == {disk.id for disk in world.vm(ID).config.disks[1:]}
    assert boot.interfaces[0].addresses == ["172.30.0.2/24"]
    assert boot.resolver.servers == ["172.30.0.1"]
    assert [(h.address, list(h.names)) for h in boot.hosts] == [("172.30.0.2", ["web"])]
    assert world.vm(ID).config.nics[0].id == world.network.taps[ID, boot_network(world)]


def boot_network(world: World) -> str:
    return world.execution.get(ID).spec.endpoints[0].network


async def test_a_vm_is_sized_for_its_limits(world: World) -> None:
    await world.running(ID, resources=Resources(memory=100 << 20, nano_cpus=1_500_000_000))
    config = world.vm(ID).config
    assert config.memory_mib == 100 + 3 + 60  # the fake guest has no initramfs
    assert config.vcpus == 2


async def test_a_process_that_ends_at_once_was_started(world: World) -> None:
    def script(guest: FakeGuest) -> None:
        guest.run()
        guest.exit(3)

    world.script = script
    await world.create(ID)
    exit_ = world.execution.arm_wait(ID, WaitRequest.NEXT_EXIT)
    await world.execution.start(ID)
    assert (await exit_).exit_code == 3
    assert await events_until(world, ContainerEvent.DIED) == ["CREATED", "STARTED", "DIED"]


async def test_a_failed_launch_carries_the_guests_words_and_code(world: World) -> None:
    world.script = lambda guest: guest.fail(127, 'exec: "nope": executable file not found in $PATH')
    await world.create(ID, ports=[PORT])
    with pytest.raises(PortLayerError, match="executable file not found") as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.LAUNCH_FAILED
    assert caught.value.exit_code == 127
    state = world.execution.get(ID).state()
    assert state.status == ContainerState.CREATED
    assert state.exit_code == 127
    assert "not found" in state.error
    assert not world.network.taps
    assert not world.network.ports
    assert world.vm(ID).power is PowerState.OFF


async def test_a_guest_that_never_speaks_is_given_up_with_its_console(world: World) -> None:
    world.script = lambda guest: None
    patience(world, boot=0.05)
    await world.create(ID)
    world.vm(ID).console = b"\x1b[0mKernel panic - not syncing: no init\x00"
    with pytest.raises(PortLayerError, match=r"(?s)not become ready within.*Kernel panic") as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.GUEST_LOST
    assert world.vm(ID).power is PowerState.OFF
    assert world.execution.get(ID).status is Status.CREATED


async def test_a_vm_that_dies_in_its_boot_is_a_failed_launch(world: World) -> None:
    world.script = lambda guest: guest.crash()
    await world.create(ID)
    with pytest.raises(PortLayerError, match="qemu is gone") as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.LAUNCH_FAILED
    assert caught.value.exit_code == 128


STEPS_OF_START = 4


@pytest.mark.parametrize("step", range(STEPS_OF_START))
async def test_a_start_that_fails_at_any_step_is_taken_back(world: World, step: int) -> None:
    await world.create(ID, ports=[PORT], mounts=[mount()])
    leases = dict(world.network.leases)
    world.faults.start(fail_at=step)
    with pytest.raises((Injected, PortLayerError)):
        await world.execution.start(ID)
    world.faults.start()
    container = world.execution.get(ID)
    assert container.status is Status.CREATED
    assert not world.network.taps
    assert not world.network.ports
    assert world.network.leases == leases
    assert world.vm(ID).power is PowerState.OFF
    assert Record.from_extra(world.vm(ID).config.extra).intent is Intent.CREATED
    assert "injected" in container.state().error
    await world.execution.start(ID)


async def test_every_step_of_start_was_made_to_fail(world: World) -> None:
    await world.create(ID, ports=[PORT], mounts=[mount()])
    world.faults.start()
    await world.execution.start(ID)
    assert world.faults.calls == [
        "network.reserve_ports",
        "network.plug",
        "hypervisor.configure",
        "hypervisor.start",
    ]
    assert len(world.faults.calls) == STEPS_OF_START


async def test_a_running_container_cannot_be_started(world: World) -> None:
    await world.running(ID)
    with pytest.raises(PortLayerError, match="it is running; it must be created or exited") as caught:
        await world.execution.start(ID)
    assert caught.value.reason == Reason.ALREADY_RUNNING


async def test_a_caller_who_goes_away_does_not_stop_the_start(world: World) -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    guests: list[FakeGuest] = []
    world.script = guests.append
    await world.create(ID)
    call = asyncio.create_task(world.execution.start(ID))
    while not guests:
        await asyncio.sleep(0)
    call.cancel()
    guests[0].run()
    await events_until(world, ContainerEvent.STARTED)
    assert world.execution.get(ID).status is Status.RUNNING
    gate.cancel()


async def test_two_containers_cannot_write_one_volume_at_the_same_time(world: World) -> None:
    first = await world.running(name="one", mounts=[mount()])
    second = await world.create(name="two", mounts=[mount(read_only=True)])
    with pytest.raises(PortLayerError, match="volume data is in use by container one") as caught:
        await world.execution.start(second)
    assert caught.value.reason == Reason.VOLUME_IN_USE
    await world.execution.kill(first, 9)
    await world.execution.start(second)
    third = await world.running(name="three", mounts=[mount(read_only=True)])
    assert world.execution.get(third).status is Status.RUNNING


async def test_the_vch_limits_the_memory_of_running_vms(world: World) -> None:
    object.__setattr__(world.config, "max_memory_mib", 1500)
    await world.running(name="one")
    second = await world.create(name="two")
    with pytest.raises(PortLayerError, match="2048 MiB") as caught:
        await world.execution.start(second)
    assert caught.value.reason == Reason.LIMIT_EXCEEDED
    assert world.execution.get(second).status is Status.CREATED


async def test_a_chosen_port_is_asked_for_again(world: World) -> None:
    any_port = PortBinding(container_port=80, protocol="tcp")
    await world.running(ID, ports=[any_port])
    first = world.execution.get(ID).spec.ports[0].assigned_port
    await world.execution.kill(ID, 9)
    assert not world.network.ports
    await world.execution.start(ID)
    assert world.execution.get(ID).spec.ports[0].assigned_port == first
    await world.execution.kill(ID, 9)
    await world.running(name="thief", ports=[PortBinding(container_port=1, protocol="tcp", host_port=first)])
    await world.execution.start(ID)
    assert world.execution.get(ID).spec.ports[0].assigned_port not in (0, first)
    assert world.execution.get(ID).spec.ports[0].host_port == 0


# ---------------------------------------------------------------- stop and kill


async def test_stop_sends_the_signal_and_waits(world: World) -> None:
    await world.running(ID)
    state = await world.execution.stop(StopRequest(id=ID, timeout=10))
    assert world.guest(ID).signals == [15]
    assert state.status == ContainerState.EXITED
    assert state.exit_code == 143
    kinds = await events_until(world, ContainerEvent.STOPPED)
    assert kinds == ["CREATED", "STARTED", "KILLED", "DIED", "STOPPED"] or kinds == [
        "CREATED",
        "STARTED",
        "DIED",
        "KILLED",
        "STOPPED",
    ]
    assert not world.network.taps


async def test_stop_uses_the_specs_signal(world: World) -> None:
    await world.running(ID, stop_signal=3)
    await world.execution.stop(StopRequest(id=ID, timeout=10))
    assert world.guest(ID).signals == [3]


async def test_a_process_that_ignores_the_signal_is_forced(world: World) -> None:
    await world.running(ID)
    world.guest(ID).ignores.add(15)
    state = await world.execution.stop(StopRequest(id=ID, timeout=0))
    assert world.guest(ID).signals == [15, -1]
    assert state.exit_code == 137


async def test_a_guest_that_does_not_answer_loses_its_power(world: World) -> None:
    patience(world, signal=0.01, power_off=0.01, call=0.01)
    await world.running(ID)
    world.guest(ID).deaf = True
    state = await world.execution.stop(StopRequest(id=ID, timeout=0))
    assert state.exit_code == 137
    assert state.error == ""
    assert world.vm(ID).power is PowerState.OFF


async def test_kill_is_over_when_it_returns(world: World) -> None:
    await world.running(ID)
    await world.execution.kill(ID, 0)
    state = world.execution.get(ID).state()
    assert (state.status, state.exit_code) == (ContainerState.EXITED, 137)


async def test_other_signals_are_only_delivered(world: World) -> None:
    await world.running(ID)
    world.guest(ID).ignores.add(1)
    await world.execution.kill(ID, 1)
    assert world.guest(ID).signals == [1]
    assert world.execution.get(ID).status is Status.RUNNING


@pytest.mark.parametrize("call", ["stop", "kill", "pause", "unpause"])
async def test_calls_that_need_a_running_container_say_so(world: World, call: str) -> None:
    await world.create(ID)
    calls = {
        "stop": lambda: world.execution.stop(StopRequest(id=ID)),
        "kill": lambda: world.execution.kill(ID, 9),
        "pause": lambda: world.execution.pause(ID),
        "unpause": lambda: world.execution.unpause(ID),
    }
    with pytest.raises(PortLayerError, match="it is created") as caught:
        await calls[call]()
    assert caught.value.reason == Reason.NOT_RUNNING


async def test_a_container_that_hangs_in_its_boot_can_be_killed(world: World) -> None:
    guests: list[FakeGuest] = []
    world.script = guests.append
    await world.create(ID)
    start = asyncio.create_task(world.execution.start(ID))
    while world.execution.get(ID).run is None:
        await asyncio.sleep(0)
    await world.execution.kill(ID, 9)
    with pytest.raises(PortLayerError, match="killed while it was starting"):
        await start
    assert world.execution.get(ID).status is Status.CREATED


async def test_a_guest_that_reported_its_end_but_stays_is_cut_off(world: World) -> None:
    patience(world, power_off=0.02)
    await world.running(ID)
    guest = world.guest(ID)
    guest.vm.off = lambda detail: None  # type: ignore[method-assign]
    exit_ = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    del_off = guest.vm.__class__.off
    guest.exit(5)
    guest.vm.off = del_off.__get__(guest.vm)  # type: ignore[method-assign]
    assert (await exit_).exit_code == 5


async def test_a_vm_that_vanishes_has_exit_code_137_and_says_why(world: World) -> None:
    await world.running(ID)
    exit_ = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    world.guest(ID).crash()
    reply = await exit_
    assert reply.exit_code == 137
    assert "without reporting an exit (crashed: qemu is gone)" in reply.error


async def test_out_of_memory_is_shown(world: World) -> None:
    await world.running(ID)
    exit_ = world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)
    world.guest(ID).publish(Event(oom=OomEvent(kills=1)))
    world.guest(ID).exit(137, oom=True)
    await exit_
    assert world.execution.get(ID).state().oom_killed
    assert "DIED" in await events_until(world, ContainerEvent.DIED)


async def test_restart_stops_and_starts(world: World) -> None:
    await world.running(ID)
    first = world.guest(ID)
    state = await world.execution.restart(StopRequest(id=ID, timeout=5))
    assert first.signals == [15]
    assert state.status == ContainerState.RUNNING
    assert world.guest(ID) is not first


# ---------------------------------------------------------------- pause


async def test_pause_and_unpause_move_the_vm_and_set_its_clock(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    assert world.vm(ID).power is PowerState.SUSPENDED
    assert world.execution.get(ID).state().status == ContainerState.PAUSED
    before = len(world.guest(ID).times)
    await world.execution.unpause(ID)
    assert world.vm(ID).power is PowerState.ON
    assert len(world.guest(ID).times) == before + 1


@pytest.mark.parametrize("signal", [1, 9])
async def test_a_signal_ends_a_pause(world: World, signal: int) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    if signal == 1:
        world.guest(ID).ignores.add(1)
    await world.execution.kill(ID, signal)
    seen = await events_until(world, ContainerEvent.KILLED)
    assert seen[-2:] == ["UNPAUSED", "KILLED"]
    assert world.execution.get(ID).status is (Status.EXITED if signal == 9 else Status.RUNNING)


async def test_a_paused_container_can_be_stopped(world: World) -> None:
    await world.running(ID)
    await world.execution.pause(ID)
    await world.execution.stop(StopRequest(id=ID, timeout=5))
    assert world.execution.get(ID).state().exit_code == 143


# ---------------------------------------------------------------- wait


async def test_wait_conditions(world: World) -> None:
    await world.create(ID)
    assert (await world.execution.arm_wait(ID, WaitRequest.NOT_RUNNING)).exit_code == 0
    next_exit = world.execution.arm_wait(ID, WaitRequest.NEXT_EXIT)
    removed = world.execution.arm_wait(ID, WaitRequest.REMOVED)
    await world.execution.start(ID)
    assert not next_exit.done()
    await world.execution.kill(ID, 9)
    assert (await next_exit).exit_code == 137
    assert not removed.done()
    await world.execution.remove(ID, force=False)
    assert (await removed).exit_code == 137


# ---------------------------------------------------------------- what guests push


async def test_health_is_shown_and_announced_when_it_changes(world: World) -> None:
    await world.running(ID, health=HealthCheck(test=["true"]))
    assert world.execution.get(ID).state().health == HealthEvent.STARTING
    for number in range(7):
        probe = HealthEvent(status=HealthEvent.HEALTHY, finished_at=number + 1, output=str(number))
        world.guest(ID).publish(Event(health=probe))
    await events_until(world, ContainerEvent.HEALTH)
    world.guest(ID).publish(Event(oom=OomEvent()))
    await events_until(world, ContainerEvent.OOM)
    state = world.execution.get(ID).state()
    assert state.health == HealthEvent.HEALTHY
    assert [probe.output for probe in state.probes] == ["2", "3", "4", "5", "6"]


async def test_the_end_of_an_exec_is_announced_once(world: World) -> None:
    await world.running(ID)
    ended = ExecState(exec_id="e1", exit_code=4)
    world.guest(ID).publish(Event(exec=ended))
    world.guest(ID).publish(Event(exec=ended))
    world.guest(ID).publish(Event(oom=OomEvent()))
    assert (await events_until(world, ContainerEvent.OOM)).count("EXEC_DIED") == 1


async def test_a_guest_that_floods_events_is_slowed_down_and_still_ends(world: World) -> None:
    await world.running(ID)
    subscription = world.execution.house.hub.subscribe()
    guest = world.guest(ID)
    for number in range(20_000):
        guest.publish(Event(exec=ExecState(exec_id=str(number))))
    exit_ = world.execution.arm_wait(ID, WaitRequest.NEXT_EXIT)
    guest.exit(3)
    assert (await exit_).exit_code == 3
    seen = 0
    while (await anext(subscription)).container.kind != ContainerEvent.DIED:
        seen += 1  # a subscriber who was cut off raises here
    assert seen < 2000


async def test_a_lying_guest_cannot_move_its_times_into_the_future(world: World) -> None:
    await world.running(ID)
    guest = world.guest(ID)
    guest.state.started_at = 1
    exit_ = world.execution.arm_wait(ID, WaitRequest.NEXT_EXIT)
    world.clock.now = lambda: 2_000_000_000 * 10**9  # type: ignore[method-assign]
    guest.exit(0)
    await exit_
    state = world.execution.get(ID).state()
    assert state.started_at <= state.finished_at <= world.clock.now()
