"""Everything at once, from many clients, with guests that do as they please and a port layer that dies.

Whatever happens, only PortLayerErrors are seen, nothing hangs, and in the end
host and records agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.record import Intent, Record
from portlayer.execution.states import LIVE, Status
from portlayer.hypervisor.base import PowerState
from portlayer.portlayer_pb2 import Endpoint, PortBinding, RestartPolicy, StopRequest, WaitRequest
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.fakes.network import NETWORK, OTHER_NETWORK
from tests.portlayer.world import World, always, mount

NAMES = ["a", "b", "c"]
PORT = PortBinding(container_port=80, protocol="tcp", host_port=8080)


class Storm:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        world.script = self.guest

    def guest(self, guest: FakeGuest) -> None:
        match self.random.randrange(6):
            case 0:
                guest.fail(127, "not found")
            case 1:
                guest.run()
                guest.exit(self.random.randrange(2))
            case 2:
                guest.crash()
            case _:
                guest.run()

    def some(self) -> str:
        containers = self.world.execution.house.registry.all()
        return self.random.choice(containers).id if containers else "f" * 64

    async def step(self) -> None:
        execution = self.world.execution
        chosen = self.some()
        policy = self.random.choice([RestartPolicy.NO, RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE])
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: self.world.create(
                name=self.random.choice(NAMES),
                restart=always(policy, 2),
                ports=[PORT] if self.random.random() < 0.5 else [],
                mounts=[mount()] if self.random.random() < 0.3 else [],
                endpoints=[Endpoint(network=NETWORK, ipv4="172.30.0.200")]
                if self.random.random() < 0.3
                else [Endpoint(network=NETWORK)],
            ),
            lambda: execution.start(chosen),
            lambda: execution.start(chosen),
            lambda: execution.stop(StopRequest(id=chosen, timeout=self.random.choice([0, 5]))),
            lambda: execution.restart(StopRequest(id=chosen, timeout=5)),
            lambda: execution.kill(chosen, self.random.choice([9, 9, 15, 1])),
            lambda: execution.pause(chosen),
            lambda: execution.unpause(chosen),
            lambda: execution.remove(chosen, force=self.random.random() < 0.5),
            lambda: self.change(chosen),
            lambda: self.misbehave(chosen),
            lambda: self.give_up(chosen),
        ]
        with contextlib.suppress(PortLayerError):
            await self.random.choice(calls)()

    async def change(self, chosen: str) -> None:
        handle = self.world.execution.open_handle(chosen)
        handle.spec.name = self.random.choice([*NAMES, handle.spec.name])
        if self.random.random() < 0.5 and len(handle.spec.endpoints) == 1:
            handle.spec.endpoints.add(network=OTHER_NETWORK)
        elif len(handle.spec.endpoints) > 1:
            del handle.spec.endpoints[1]
        await self.world.execution.commit(handle)

    async def misbehave(self, chosen: str) -> None:
        vm = self.world.hypervisor.vms.get(chosen)
        if vm is not None and vm.guest is not None and vm.power is PowerState.ON:
            self.random.choice([vm.guest.crash, lambda: vm.guest.exit(3), lambda: vm.guest.exit(0)])()

    async def give_up(self, chosen: str) -> None:
        """A client that hangs up in the middle of its call."""
        call = asyncio.create_task(self.world.execution.start(chosen))
        for _ in range(self.random.randrange(5)):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        if not call.cancelled() and (error := call.exception()) is not None:
            raise error


def check(world: World) -> None:
    execution = world.execution
    containers = execution.house.registry.all()
    assert {container.id for container in containers} == set(world.hypervisor.vms) == set(world.disks.disks)
    assert len({container.name for container in containers}) == len(containers)
    plugged = {container for container, _ in world.network.taps}
    for container in containers:
        vm = world.vm(container.id)
        record = Record.from_extra(vm.config.extra)
        assert record.spec == container.record.spec
        assert (vm.power is not PowerState.OFF) == (container.status in LIVE), container.status
        assert (container.id in plugged) == container.live
        assert (record.intent is Intent.RUNNING) == container.live
        assert not container.lock.locked()
    live = {container.id for container in containers if container.live}
    assert set(world.network.ports.values()) <= live
    assert {container for container, _ in world.network.leases} <= {container.id for container in containers}


async def quiet(world: World) -> None:
    """Until nothing moves: no operation, no settling, nobody waiting for the clock."""
    house = world.execution.house
    for _ in range(10_000):
        await asyncio.sleep(0.001)
        if world.clock._sleepers:
            await world.clock.slept()
            continue
        moving = [
            c
            for c in house.registry.all()
            if c.status in (Status.STARTING, Status.STOPPING, Status.RESTARTING)
        ]
        dying = [c for c in house.registry.all() if c.live and world.vm(c.id).power is PowerState.OFF]
        if not (moving or dying or house._operations or house._background):
            return
    raise AssertionError("it never comes to rest")


@pytest.mark.parametrize("seed", range(25))
async def test_host_and_records_agree_after_a_storm(world: World, seed: int) -> None:
    storm = Storm(world, seed)
    for _ in range(6):
        async with asyncio.timeout(30):
            await asyncio.gather(*(storm.step() for _ in range(12)))
            storm.random.random()
            world.script = lambda guest: guest.run()  # let restarts come to an end
            await quiet(world)
            world.script = storm.guest
        check(world)


@pytest.mark.parametrize("seed", range(25))
async def test_a_port_layer_that_dies_in_the_storm_finds_it_all_again(world: World, seed: int) -> None:
    storm = Storm(world, seed)
    for _ in range(5):
        tasks = [asyncio.create_task(storm.step()) for _ in range(12)]
        for _ in range(storm.random.randrange(60)):
            await asyncio.sleep(0)
        await world.crash()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        world.script = lambda guest: guest.run()
        async with asyncio.timeout(30):
            await world.boot()
            for container in world.execution.house.registry.all():
                guest = world.vm(container.id).guest
                if container.status is Status.STARTING and guest is not None and not guest.events:
                    guest.run()
            await quiet(world)
        check(world)
        world.script = storm.guest


async def test_waiters_are_always_answered(world: World) -> None:
    storm = Storm(world, 99)
    identifier = await world.create(name="w", restart=always(RestartPolicy.ON_FAILURE, 1))
    waits = [world.execution.arm_wait(identifier, c) for c in (WaitRequest.NEXT_EXIT, WaitRequest.REMOVED)]
    await asyncio.gather(*(storm.step() for _ in range(20)))
    world.script = lambda guest: guest.run()
    async with asyncio.timeout(30):
        await quiet(world)
        if world.execution.house.registry.find(identifier) is not None:
            await world.execution.remove(identifier, force=True)
        await asyncio.gather(*waits)
