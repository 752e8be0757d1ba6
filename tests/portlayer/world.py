"""A host in memory: fakes of the rooms that behave, for tests of execution, interaction and service.

The durable half (VMs, journals in real files, disks) survives a restart of the
port layer; the volatile half (leases, taps, channels) does not. Every call of a
room can be made to fail: see :class:`Faults`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portlayer.execution.events import EventHub
from portlayer.execution.house import House, Timeouts
from portlayer.execution.manager import Execution
from portlayer.execution.registry import Registry
from portlayer.execution.rooms import Rooms
from portlayer.hypervisor.base import (
    PowerState,
)
from portlayer.journal.watcher import JournalWatcher
from portlayer.portlayer_pb2 import (
    ContainerSpec,
    Endpoint,
    Handle,
    PortlayerEvent,
    RestartPolicy,
    VolumeMount,
)
from tests.portlayer.fakes.channel import FakeChannel
from tests.portlayer.fakes.faults import Clock, Faults
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.fakes.hypervisor import CAPABILITIES, FakeHypervisor, FakeVm
from tests.portlayer.fakes.network import NETWORK, FakeNetwork
from tests.portlayer.fakes.storage import FakeDisks, FakeImages, FakeVolumes
from tether.tether_pb2 import (
    Process,
)
from vch.config import Guest, VchConfig


class Lifeline:
    """A room as one port layer sees it. After its death no call of it does anything any more:
    a killed process does not clean up."""

    def __init__(self, room: Any) -> None:
        self._room = room
        self.alive = True

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._room, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            if not self.alive:
                raise asyncio.CancelledError
            return value(*arguments, **options)

        return call


def run_and_wait(guest: FakeGuest) -> None:
    """The usual guest: runs until it is told to end."""
    guest.run()


@dataclass
class World:
    """``boot`` starts a port layer on this host; ``crash`` takes it away without a word."""

    root: Path
    config: VchConfig = field(init=False)
    script: Callable[[FakeGuest], None] = run_and_wait
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(boot=30, power_off=30, call=30, signal=30))

    def __post_init__(self) -> None:
        self.faults = Faults()
        self.clock = Clock()
        self.hypervisor = FakeHypervisor(self, self.root)
        self.images = FakeImages()
        self.disks = FakeDisks(self)
        self.volumes = FakeVolumes()
        self.network = FakeNetwork(self)
        self.channels: dict[str, FakeChannel] = {}
        self.config = VchConfig(
            name="test",
            id="0" * 32,
            root=self.root,
            run=self.root,
            guest=Guest(kernel=self.root / "kernel", initrd=self.root / "initrd"),
        )
        self.execution: Execution | None = None

    async def boot(self) -> Execution:
        self.network = FakeNetwork(self)
        self._lifelines = [Lifeline(room) for room in (self.hypervisor, self.disks, self.network)]
        hypervisor, disks, network = self._lifelines
        rooms = Rooms(
            hypervisor=hypervisor,
            capabilities=CAPABILITIES,
            images=self.images,
            disks=disks,
            volumes=self.volumes,
            network=network,
            channel=self._channel,
        )
        house = House(
            config=self.config,
            rooms=rooms,
            registry=Registry(self.config),
            hub=EventHub(self.clock.now),
            watcher=JournalWatcher(),
            clock=self.clock,
            timeouts=self.timeouts,
        )
        self.execution = Execution(house)
        self._subscription = house.hub.subscribe()
        await self.execution.open()
        return self.execution

    async def crash(self) -> None:
        """kill -9 of the port layer: nothing of it gets to say anything."""
        assert self.execution is not None
        house = self.execution.house
        for lifeline in self._lifelines:
            lifeline.alive = False
        for task in [*house._operations, *house._background]:
            task.cancel()
        await self.execution._power.supervisor.close()
        house.watcher.close()
        self.execution = None

    async def close(self) -> None:
        if self.execution is not None:
            await self.execution.close()

    def _channel(self, connect: Any, name: str) -> FakeChannel:
        def guest() -> FakeGuest | None:
            for identifier, vm in self.hypervisor.vms.items():
                if identifier.startswith(name):
                    return vm.guest if vm.power is not PowerState.OFF else None
            return None

        self.channels[name] = FakeChannel(guest)
        return self.channels[name]

    # -- shortcuts
    def vm(self, identifier: str) -> FakeVm:
        return self.hypervisor.vms[identifier]

    def guest(self, identifier: str) -> FakeGuest:
        guest = self.vm(identifier).guest
        assert guest is not None
        return guest

    def channel(self, identifier: str) -> FakeChannel:
        return self.channels[identifier[:12]]

    async def next_event(self) -> PortlayerEvent:
        return await anext(self._subscription)

    def spec(self, name: str = "web", **fields: Any) -> ContainerSpec:
        fields.setdefault("process", Process(argv=["/bin/server"]))
        fields.setdefault("endpoints", [Endpoint(network=NETWORK)])
        return ContainerSpec(name=name, **fields)

    async def create(self, identifier: str = "", **fields: Any) -> str:
        assert self.execution is not None
        identifier = identifier or os.urandom(32).hex()
        await self.execution.commit(Handle(id=identifier, spec=self.spec(**fields)))
        return identifier

    async def running(self, identifier: str = "", **fields: Any) -> str:
        assert self.execution is not None
        identifier = await self.create(identifier, **fields)
        await self.execution.start(identifier)
        return identifier


def always(condition: Any = RestartPolicy.ALWAYS, retries: int = 0) -> RestartPolicy:
    return RestartPolicy(condition=condition, maximum_retries=retries)


def mount(volume: str = "data", destination: str = "/data", *, read_only: bool = False) -> VolumeMount:
    return VolumeMount(volume=volume, destination=destination, read_only=read_only)
