"""What every part of execution shares: the rooms, the registry, the hub, the clock.

:meth:`House.save` is the only way a container's record changes: durable first,
then in memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from portlayer.errors import PortLayerError
from portlayer.execution.boot import ROOT_DISK, read_only_volumes, shared_mount, volume_disk_id
from portlayer.execution.container import Container
from portlayer.execution.events import EventHub
from portlayer.execution.hostpaths import HostPaths
from portlayer.execution.record import Record
from portlayer.execution.registry import Registry
from portlayer.execution.rooms import Rooms, Volume
from portlayer.hypervisor.base import ConcurrentAccess, Disk, Share, VmConfig
from portlayer.journal.reader import JournalReader
from portlayer.journal.watcher import JournalWatcher
from portlayer.portlayer_pb2 import ContainerEvent, ContainerSpec, HostMount, Reason
from tether.tether_pb2 import Mount
from vch.config import VchConfig

__all__ = ["Clock", "House", "SystemClock", "Timeouts"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> int:
        """Nanoseconds since the epoch."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds; bounded patience with guests."""

    boot: float = 120.0  # power on → the process runs; an emulated CPU is slow
    power_off: float = 30.0  # EXITED or a kill → disks synced, VM off
    call: float = 30.0  # one question to a guest
    signal: float = 10.0


@dataclass
class House:
    config: VchConfig
    rooms: Rooms
    registry: Registry
    hub: EventHub
    watcher: JournalWatcher
    clock: Clock = field(default_factory=SystemClock)
    timeouts: Timeouts = field(default_factory=Timeouts)
    _readers: dict[str, set[JournalReader]] = field(default_factory=dict)
    _operations: set[asyncio.Task[Any]] = field(default_factory=set)
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def shares(self) -> HostPaths:
        return HostPaths(self.config.shared_paths)

    async def save(self, container: Container, record: Record, **hardware: Any) -> None:
        """Make ``record`` (and changed hardware of the VM) durable, then current.

        Raises:
            PortLayerError: VERSION_CONFLICT when somebody else changed the VM; nothing changed.
        """
        vm = container.vm
        assert vm is not None, "saved before it was created"
        config: VmConfig = replace(vm.config, name=record.spec.name, extra=record.to_extra(), **hardware)
        try:
            container.vm = await self.rooms.hypervisor.configure(config, version=vm.version)
        except ConcurrentAccess as error:
            container.vm = await self.rooms.hypervisor.get(container.id)
            raise PortLayerError(Reason.VERSION_CONFLICT, str(error)) from error
        container.record = record

    @contextmanager
    def reading(self, container: Container, reader: JournalReader) -> Iterator[None]:
        """While somebody reads a journal, rotation takes nothing from him."""
        readers = self._readers.setdefault(container.id, set())
        readers.add(reader)
        try:
            yield
        finally:
            readers.discard(reader)
            if not readers:
                self._readers.pop(container.id, None)

    async def rotate_journal(self, container: Container, keep: int) -> None:
        for reader in self._readers.get(container.id, ()):
            reader.hold()
        await self.rooms.hypervisor.rotate_journal(container.id, keep=keep)

    async def refresh(self, container: Container) -> None:
        container.vm = await self.rooms.hypervisor.get(container.id)

    def require_volumes(self, container: Container, spec: ContainerSpec) -> None:
        """Every volume of ``spec`` exists and stays.

        Raises:
            PortLayerError: NO_SUCH_VOLUME
        """
        self.registry.check_volumes_stay(container, spec.mounts)
        self.shares.check(spec.host_mounts)
        for mount in spec.mounts:
            volume = self.rooms.volumes.get(mount.volume)
            if _is_shared(volume) and not self.rooms.capabilities.max_shares:
                raise PortLayerError(
                    Reason.NOT_SUPPORTED,
                    f"volume {mount.volume} is a directory of the host: container VMs of this virtual "
                    "container host do not see the host's file system",
                )
            if volume.device:
                self.shares.check([HostMount(path=volume.device)])

    def disk_volumes(self, spec: ContainerSpec) -> dict[str, bool]:
        """Of the volumes those that are disks, and whether each is attached read-only."""
        found = read_only_volumes(spec.mounts)
        shared = {name for name in found if _is_shared(self.rooms.volumes.get(name))}
        return {name: read_only for name, read_only in found.items() if name not in shared}

    def guest_shares(self, spec: ContainerSpec) -> tuple[list[Share], list[Mount]]:
        """Paths of the host and shared volumes: what the VM shares, and the guest's mounts of it."""
        shares, mounts = self.shares.of(spec.host_mounts)
        for volume, read_only in read_only_volumes(spec.mounts).items():
            info = self.rooms.volumes.get(volume)
            wanted = [mount for mount in spec.mounts if mount.volume == volume]
            if info.device:
                more, where = self.shares.of(
                    HostMount(
                        path=info.device,
                        destination=mount.destination,
                        read_only=mount.read_only or info.device_read_only,
                    )
                    for mount in wanted
                )
                shares += more
                mounts += where
            elif info.shared:
                tag = volume_disk_id(volume)
                shares.append(Share(tag=tag, path=info.path.resolve(), read_only=read_only))
                mounts += [shared_mount(mount, tag, copy_up=not read_only) for mount in wanted]
        return list({share.tag: share for share in shares}.values()), mounts

    def vm_disks(self, container: Container) -> Sequence[Disk]:
        """Root disk first, then each volume once."""
        disks = [Disk(id=ROOT_DISK, path=self.rooms.disks.path(container.id))]
        for volume, read_only in self.disk_volumes(container.spec).items():
            path = self.rooms.volumes.get(volume).path
            disks.append(Disk(id=volume_disk_id(volume), path=path, read_only=read_only))
        return disks

    async def complete(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run ``operation`` to its end even when the caller goes away: no half-done changes."""
        task = asyncio.get_running_loop().create_task(operation)
        self.keep(task)
        return await asyncio.shield(task)

    def keep(self, task: asyncio.Task[Any]) -> None:
        self._operations.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._operations.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            expected = isinstance(error, PortLayerError)
            log.debug("operation ended with %r", error, exc_info=None if expected else error)

    def keep_background(self, task: asyncio.Task[Any]) -> None:
        """A task of no call: cancelled at shutdown, its failure logged."""
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    async def drain(self, seconds: float) -> None:
        """At shutdown: let running operations end; those that do not are cancelled and roll back."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if not self._operations:
            return
        _, late = await asyncio.wait(set(self._operations), timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def announce(
        self,
        container: Container,
        kind: ContainerEvent.Kind.ValueType,
        *,
        exec_id: str = "",
        exit_code: int = 0,
        signal: int = 0,
    ) -> None:
        self.hub.container(
            ContainerEvent(
                kind=kind,
                id=container.id,
                state=container.state(),
                handle=container.handle(),
                exec_id=exec_id,
                exit_code=exit_code,
                signal=signal,
            )
        )


def _is_shared(volume: Volume) -> bool:
    return volume.shared or bool(volume.device)
