"""All VMs of one VCH: the :class:`~portlayer.hypervisor.base.Hypervisor` of plain QEMU.

Calls that change a VM run to their end even when their caller is cancelled: a
gRPC client that hangs up in the middle leaves the VM in the old state or the new.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from portlayer.hypervisor.base import (
    Capabilities,
    Disk,
    HypervisorError,
    Nic,
    NoSuchVm,
    PowerState,
    VmConfig,
    VmEvent,
    VmInfo,
)
from portlayer.hypervisor.qemu.devices import MAX_DISKS, MAX_NICS, MAX_SHARES, check_config
from portlayer.hypervisor.qemu.host import Host
from portlayer.hypervisor.qemu.machine import Machine
from portlayer.hypervisor.qemu.runtime import RunDirectory, tail
from vch.config import VchConfig

__all__ = ["QemuHypervisor"]

T = TypeVar("T")
HOUSEKEEPING_INTERVAL = 30.0
_log = logging.getLogger(__name__)


class QemuHypervisor:
    def __init__(self, config: VchConfig) -> None:
        self._config = config
        self._host_or_none: Host | None = None
        self._machines: dict[str, Machine] = {}
        self._creating: set[str] = set()
        self._watchers: weakref.WeakSet[_Watcher] = weakref.WeakSet()
        self._steps: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None

    # -- our own life

    async def open(self) -> None:
        for directory in (self._config.paths.root, self._config.paths.run / "vm"):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        host = await Host.survey(self._config)
        self._host_or_none = host
        records = await asyncio.to_thread(host.store.open)
        self._machines = {vm: Machine(host, record, self._emit) for vm, record in records.items()}
        await asyncio.gather(*(machine.attach() for machine in self._machines.values()))
        await asyncio.to_thread(self._sweep_runs, host)
        await self._tidy()
        self._keeper = asyncio.create_task(self._keep_house())

    def _sweep_runs(self, host: Host) -> None:
        known = {host.run_directory(vm).path for vm in self._machines}
        for entry in (self._config.paths.run / "vm").iterdir():
            if entry in known:
                continue
            stray = RunDirectory(entry, entry.name)
            if stray.held():  # somebody took the VM's directory away from under it: a case for a human
                _log.error("a QEMU runs that belongs to no VM: see %s", stray.log)
            else:
                stray.remove()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._steps:
            await asyncio.wait(self._steps)
        for machine in self._machines.values():
            await machine.detach()
        for watcher in list(self._watchers):
            watcher.end()

    async def capabilities(self) -> Capabilities:
        host = self._host
        return Capabilities(
            name="qemu",
            version=host.version,
            accelerator=await host.accelerator.choose(),
            profile=host.profile.value,
            hot_add_nic=True,
            hot_add_disk=True,
            max_disks=MAX_DISKS[host.profile],
            max_nics=MAX_NICS[host.profile],
            max_shares=MAX_SHARES,
        )

    # -- life cycle

    async def create(self, config: VmConfig) -> VmInfo:
        return await self._unbroken(self._create(config))

    async def _create(self, config: VmConfig, *, memory: Path | None = None) -> VmInfo:
        host = self._host
        check_config(config, host.profile)
        prefix = host.run_directory(config.id).path.name
        for taken in (*self._machines, *self._creating):
            if taken.startswith(prefix):
                raise HypervisorError(f"VM {config.id}: {taken} exists and begins like it")
        self._creating.add(config.id)
        try:
            record = await asyncio.to_thread(host.store.create, config, memory=memory)
        except OSError as error:
            raise HypervisorError(f"create VM {config.id[:12]}: {error}") from error
        finally:
            self._creating.discard(config.id)
        machine = Machine(host, record, self._emit)
        self._machines[config.id] = machine
        return machine.info()

    async def configure(self, config: VmConfig, *, version: int) -> VmInfo:
        return await self._unbroken(self._machine(config.id).configure(config, version))

    async def start(self, vm: str, *, snapshot: str | None = None) -> VmInfo:
        return await self._unbroken(self._machine(vm).start(snapshot))

    async def power_off(self, vm: str) -> None:
        await self._unbroken(self._machine(vm).power_off())

    async def suspend(self, vm: str) -> None:
        await self._unbroken(self._machine(vm).suspend())

    async def resume(self, vm: str) -> None:
        await self._unbroken(self._machine(vm).resume())

    async def snapshot(self, vm: str, name: str, *, stop: bool = False) -> None:
        await self._unbroken(self._machine(vm).snapshot(name, stop=stop))

    async def snapshots(self, vm: str) -> Sequence[str]:
        return await self._machine(vm).snapshots()

    async def delete_snapshot(self, vm: str, name: str) -> None:
        await self._unbroken(self._machine(vm).delete_snapshot(name))

    async def clone(self, vm: str, config: VmConfig) -> VmInfo:
        return await self._unbroken(self._clone(self._machine(vm), config))

    async def _clone(self, source: Machine, config: VmConfig) -> VmInfo:
        async with source.state_for(config) as memory:
            return await self._create(config, memory=memory)

    async def delete(self, vm: str) -> None:
        machine = self._machines.get(vm)
        if machine is not None:
            await self._unbroken(self._delete(machine))

    async def _delete(self, machine: Machine) -> None:
        await machine.delete()
        self._machines.pop(machine.id, None)

    # -- what is there

    async def list(self) -> list[VmInfo]:
        return [machine.info() for machine in self._machines.values()]

    async def get(self, vm: str) -> VmInfo:
        return self._machine(vm).info()

    def watch(self) -> AsyncIterator[VmEvent]:
        watcher = _Watcher()
        self._watchers.add(watcher)
        return watcher

    # -- hot plug

    async def add_nic(self, vm: str, nic: Nic) -> None:
        await self._unbroken(self._machine(vm).add_nic(nic))

    async def remove_nic(self, vm: str, nic_id: str) -> None:
        await self._unbroken(self._machine(vm).remove_nic(nic_id))

    async def add_disk(self, vm: str, disk: Disk) -> None:
        await self._unbroken(self._machine(vm).add_disk(disk))

    async def remove_disk(self, vm: str, disk_id: str) -> None:
        await self._unbroken(self._machine(vm).remove_disk(disk_id))

    # -- streams

    async def open_channel(self, vm: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._machine(vm).open_channel()

    def journal(self, vm: str) -> Path:
        return self._machine(vm).directory.journal

    async def rotate_journal(self, vm: str, *, keep: int) -> None:
        await self._unbroken(self._machine(vm).rotate_journal(keep))

    async def console(self, vm: str, *, limit: int = 65536) -> bytes:
        return await asyncio.to_thread(tail, self._machine(vm).directory.console, limit)

    # -- inside

    @property
    def _host(self) -> Host:
        if self._host_or_none is None:
            raise HypervisorError("the hypervisor is not open")
        return self._host_or_none

    def _machine(self, vm: str) -> Machine:
        try:
            return self._machines[vm]
        except KeyError as error:
            raise NoSuchVm(f"there is no VM {vm[:64]}") from error

    def _emit(self, event: VmEvent) -> None:
        for watcher in list(self._watchers):
            watcher.push(event)

    async def _unbroken(self, step: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(step)
        self._steps.add(task)
        task.add_done_callback(self._step_done)
        return await asyncio.shield(task)

    def _step_done(self, task: asyncio.Task[Any]) -> None:
        self._steps.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("step failed: %s", task.exception())

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            try:
                await self._tidy()
            except OSError as error:
                _log.error("housekeeping: %s", error)

    async def _tidy(self) -> None:
        """What nobody waits for: lost sessions, output of talkative guests, control groups of the dead."""
        await asyncio.to_thread(self._host.store.reserve.fill)
        running = [machine for machine in self._machines.values() if machine.power is not PowerState.OFF]
        await asyncio.gather(*(machine.listen() for machine in running))
        for machine in running:
            await asyncio.to_thread(machine.trim)
        if self._host.cgroups is not None:
            live = [machine.id for machine in self._machines.values() if machine.busy]
            await asyncio.to_thread(self._host.cgroups.sweep, live)


class _Watcher(AsyncIterator[VmEvent]):
    """One subscriber. It hears what happens from the moment it is made, and goes when it is dropped."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[VmEvent | None] = asyncio.Queue()

    def push(self, event: VmEvent) -> None:
        self._queue.put_nowait(event)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __anext__(self) -> VmEvent:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # for whoever asks again
            raise StopAsyncIteration
        return event
