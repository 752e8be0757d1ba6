"""All VMs of one VCH: the :class:`~portlayer.hypervisor.base.Hypervisor` on vCenter or ESXi.

``list`` and ``get`` answer from what the collector has told; no call goes out for them.
A VM is ours when it carries our VCH's ID, wherever an administrator has moved it,
whatever he calls it now.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import (
    Capabilities,
    Disk,
    HypervisorError,
    Nic,
    NoSuchVm,
    NotSupported,
    PowerState,
    VmConfig,
    VmEvent,
    VmInfo,
)
from portlayer.hypervisor.copies import check_clone
from portlayer.hypervisor.durable import remove_directory, sweep
from portlayer.hypervisor.rotation import tail
from portlayer.hypervisor.vsphere import hardware, keys
from portlayer.hypervisor.vsphere.calls import REGISTERED_AGAIN
from portlayer.hypervisor.vsphere.collector import VM_PATHS, Collector, VmChange, read_vms
from portlayer.hypervisor.vsphere.faults import Unanswered, describe, translate
from portlayer.hypervisor.vsphere.host import Host
from portlayer.hypervisor.vsphere.inventory import find_place, list_entities
from portlayer.hypervisor.vsphere.keys import Record, Seal
from portlayer.hypervisor.vsphere.machine import Machine
from portlayer.hypervisor.vsphere.networks import Networks
from portlayer.hypervisor.vsphere.places import DatastoreMap
from portlayer.hypervisor.vsphere.session import Session
from portlayer.hypervisor.watch import Steps, Watchers
from vch.config import VchConfig

__all__ = ["VsphereHypervisor"]

HOUSEKEEPING_INTERVAL = 30.0
_DEVICES = "config.hardware.device"
_log = logging.getLogger(__name__)


class VsphereHypervisor:
    def __init__(self, config: VchConfig) -> None:
        self._config = config
        self._host_or_none: Host | None = None
        self._machines: dict[str, Machine] = {}
        self._ids: dict[str, str] = {}  # moId -> VM
        self._foreign: set[str] = set()  # moIds of VMs that are not ours
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._creating: set[str] = set()
        self._watchers = Watchers()
        self._steps = Steps()
        self._keeper: asyncio.Task[None] | None = None

    # -- our own life

    async def open(self) -> None:
        target = self._config.vsphere
        if target is None:
            raise HypervisorError("the VCH's configuration says nothing about vSphere")
        places = DatastoreMap(target.datastore, target.mount)
        places.remote(self._config.paths.vms)  # or no VM could be made
        if self._config.guest.iso is None:
            raise HypervisorError("the VCH has no bootstrap.iso (guest.iso), from which VMs boot")
        places.remote(self._config.guest.iso)
        seal = await asyncio.to_thread(Seal.load, target.key)
        self._config.paths.vms.mkdir(mode=0o711, parents=True, exist_ok=True)
        session = Session(target)
        await session.open()
        inventory = await session.read(lambda: list_entities(session), "read the inventory")
        place = find_place(inventory, target)
        collector = Collector(session, place.folder, self._hear)
        self._host_or_none = Host(
            config=self._config,
            target=target,
            session=session,
            collector=collector,
            place=place,
            places=places,
            networks=Networks(session, place.datacenter, target),
            seal=seal,
            emit=self._watchers.emit,
        )
        await collector.open()
        await asyncio.to_thread(self._sweep)
        await self._attach_all()
        self._keeper = asyncio.create_task(self._keep_house(), name="vsphere housekeeping")

    async def _attach_all(self) -> None:
        """The serial ports of all VMs that run, in one question."""
        running = [machine for machine in self._machines.values() if machine.power is not PowerState.OFF]
        devices: dict[str, Any] = {}
        if running:
            vms = [machine.calls.vm for machine in running]
            session = self._host.session
            devices = await session.read(
                lambda: read_vms(session, vms, [_DEVICES]), "read the hardware of running VMs"
            )
        for machine in list(self._machines.values()):
            found = devices.get(machine.calls.vm._moId, {})
            await machine.attach(found.get(_DEVICES))

    def _sweep(self) -> None:
        """Directories without a VM: a creation or a removal that did not finish.

        One that has a .vmx is a VM that somebody has unregistered, and his.
        """
        vms = self._config.paths.vms
        sweep(vms)
        for directory in vms.iterdir():
            if directory.name in self._machines or not directory.is_dir():
                continue
            if any(directory.glob("*.vmx")):
                _log.warning("%s is a VM that is not registered: it is left alone", directory)
                continue
            _log.info("swept %s", directory)
            remove_directory(directory)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        for timer in self._leaving.values():
            timer.cancel()
        await self._steps.ended()
        host = self._host_or_none
        if host is not None:
            for machine in self._machines.values():
                await machine.detach()
            await host.collector.close()
            await host.session.close()
        self._watchers.end()

    async def capabilities(self) -> Capabilities:
        about = self._host.session.content.about
        return Capabilities(
            name="vsphere",
            version=f"{about.version} ({about.apiType} {about.apiVersion})",
            accelerator="esxi",
            profile="vsphere",
            hot_add_nic=True,
            hot_add_disk=True,
            max_disks=hardware.MAX_DISKS,
            max_nics=hardware.MAX_NICS,
        )

    # -- what the collector says

    def _hear(self, changes: list[VmChange]) -> None:
        for change in changes:
            key = change.vm._moId
            if change.gone:
                self._left(key)
            elif change.stale:
                self._steps.begin(self._read_again(change.vm))
            elif key in self._ids:
                self._machines[self._ids[key]].hear(change.vm, change.values)
            else:
                self._entered(change.vm, change.values)

    def _entered(self, vm: Any, values: Mapping[str, Any]) -> None:
        options = values.get("config.extraConfig")
        if options is None:
            if vm._moId not in self._foreign:
                self._steps.begin(self._read_again(vm))
            return
        extra = keys.relevant({str(o.key): str(o.value) for o in options})
        if extra.get(keys.VCH.name) != self._config.id:
            self._foreign.add(vm._moId)
            return
        host = self._host_or_none
        if host is None:
            raise AssertionError("the collector speaks after the host is made")
        try:
            record = keys.decode(extra, host.seal)
        except HypervisorError as error:
            _log.error("VM %s is of this VCH and not readable, and is left alone: %s", vm._moId, error)
            self._foreign.add(vm._moId)
            return
        identity = record.config.id
        known = self._machines.get(identity)
        timer = self._leaving.pop(identity, None)
        if timer is not None:
            timer.cancel()
        self._ids[vm._moId] = identity
        if known is not None:
            _log.info("VM %s was registered again as %s", identity[:12], vm._moId)
            known.hear(vm, values)
            return
        if "runtime.powerState" not in values:
            self._ids.pop(vm._moId)
            self._steps.begin(self._read_again(vm))
            return
        machine = Machine(host, vm, values, record)
        self._machines[identity] = machine
        if self._keeper is not None and identity not in self._creating:  # it came while we were at work
            self._steps.begin(machine.attach())

    def _left(self, key: str) -> None:
        self._foreign.discard(key)
        identity = self._ids.pop(key, None)
        if identity is None:
            return
        machine = self._machines[identity]
        if machine.calls.vm._moId != key:
            return  # it was registered again before
        loop = asyncio.get_running_loop()
        if machine.deleted:
            self._machines.pop(identity, None)
        else:
            self._leaving[identity] = loop.call_later(REGISTERED_AGAIN, self._forget, identity)

    def _forget(self, identity: str) -> None:
        """It left and did not come back: somebody else has removed it."""
        self._leaving.pop(identity, None)
        machine = self._machines.pop(identity, None)
        if machine is not None:
            machine.tell_removed()
            self._steps.begin(machine.detach())

    async def _read_again(self, vm: Any) -> None:
        session = self._host.session
        found = await session.read(lambda: read_vms(session, [vm], VM_PATHS), "read a VM")
        values = found.get(vm._moId)
        if values:
            self._hear([VmChange(vm, values)])

    # -- life cycle

    async def create(self, config: VmConfig) -> VmInfo:
        return await self._steps.unbroken(self._create(config))

    async def _create(self, config: VmConfig) -> VmInfo:
        host = self._host
        hardware.check_config(config)
        for disk in config.disks:
            host.places.remote(disk.path)
        for taken in (*self._machines, *self._creating):
            if taken[:32] == config.id[:32]:
                raise HypervisorError(f"VM {config.id}: {taken} exists and begins like it")
        self._creating.add(config.id)
        what = f"VM {config.id[:12]}: create"
        try:
            await asyncio.to_thread(host.files(config.id).create)
            values = keys.encode(Record(config=config, version=1), host.config.id, host.seal)
            spec = hardware.create_spec(config, host.layout(config.id), values)
            vm = await self._make(spec, config, what)
            await self._read_again(vm)
            try:
                machine = self._machines[config.id]
            except KeyError as error:
                raise HypervisorError(f"{what}: the VM is there and not readable") from error
            return machine.info()
        except OSError as error:
            raise HypervisorError(f"{what}: {error}") from error
        finally:
            await self._created(config.id)

    async def _created(self, identity: str) -> None:
        """A VM that was not made leaves no directory; one of which nobody knows keeps its own."""
        self._creating.discard(identity)
        directory = self._host.files(identity).path
        if identity not in self._machines and not any(directory.glob("*.vmx")):
            await asyncio.to_thread(remove_directory, directory)

    async def _make(self, spec: Any, config: VmConfig, what: str) -> Any:
        host = self._host
        begin = functools.partial(host.place.folder.CreateVM_Task, spec, host.place.pool, None)
        for attempt in (1, 2, 3):
            try:
                return await host.collector.run(begin, what)
            except Unanswered as error:
                _log.info("%s: %s", what, error)
                found = await self._find(config.id)
                if found is not None:
                    return found
                if attempt == 3:
                    raise
            except vim.fault.DuplicateName as error:
                found = await self._find(config.id)
                if found is None:
                    raise translate(error, what) from error
                return found  # of an attempt whose answer was lost
            except vmodl.MethodFault as error:
                raise translate(error, what) from error
        raise AssertionError("unreachable")

    async def _find(self, identity: str) -> Any | None:
        host = self._host
        search = functools.partial(
            host.session.content.searchIndex.FindByUuid,
            host.place.datacenter,
            hardware.instance_uuid(identity),
            True,
            False,
        )
        return await host.session.read(search, f"VM {identity[:12]}: look for it")

    async def configure(self, config: VmConfig, *, version: int) -> VmInfo:
        return await self._steps.unbroken(self._machine(config.id).configure(config, version))

    async def start(self, vm: str, *, snapshot: str | None = None) -> VmInfo:
        if snapshot is not None:
            raise NotSupported(
                f"VM {vm[:12]}: start from snapshot {snapshot}: vSphere keeps no memory beside our disks"
            )
        return await self._steps.unbroken(self._machine(vm).start())

    async def power_off(self, vm: str) -> None:
        await self._steps.unbroken(self._machine(vm).power_off())

    async def suspend(self, vm: str) -> None:
        await self._steps.unbroken(self._machine(vm).suspend())

    async def resume(self, vm: str) -> None:
        await self._steps.unbroken(self._machine(vm).resume())

    async def snapshot(self, vm: str, name: str, *, stop: bool = False) -> None:
        await self._steps.unbroken(self._machine(vm).copies.snapshot(name, stop=stop))

    async def snapshots(self, vm: str) -> Sequence[str]:
        return await self._machine(vm).copies.snapshots()

    async def delete_snapshot(self, vm: str, name: str) -> None:
        await self._steps.unbroken(self._machine(vm).copies.delete_snapshot(name))

    async def clone(self, vm: str, config: VmConfig) -> VmInfo:
        return await self._steps.unbroken(self._clone(self._machine(vm), config))

    async def _clone(self, source: Machine, config: VmConfig) -> VmInfo:
        if source.power is PowerState.OFF:
            check_clone(source.info().config, config, None)
            return await self._create(config)
        host = self._host
        hardware.check_config(config)
        self._creating.add(config.id)
        try:
            await asyncio.to_thread(host.files(config.id).create)
            vm = await source.copies.clone(config)
            await self._read_again(vm)
            machine = self._machines[config.id]
            await machine.copies.finish_clone()
            return machine.info()
        finally:
            await self._created(config.id)

    async def delete(self, vm: str) -> None:
        machine = self._machines.get(vm)
        if machine is not None:
            await self._steps.unbroken(self._delete(machine))

    async def _delete(self, machine: Machine) -> None:
        await machine.delete()
        self._machines.pop(machine.id, None)
        self._ids.pop(machine.calls.vm._moId, None)
        timer = self._leaving.pop(machine.id, None)
        if timer is not None:
            timer.cancel()

    # -- what is there

    async def list(self) -> list[VmInfo]:
        return [machine.info() for machine in self._machines.values()]

    async def get(self, vm: str) -> VmInfo:
        return self._machine(vm).info()

    def watch(self) -> AsyncIterator[VmEvent]:
        return self._watchers.watch()

    # -- hot plug

    async def add_nic(self, vm: str, nic: Nic) -> None:
        await self._steps.unbroken(self._machine(vm).add_nic(nic))

    async def remove_nic(self, vm: str, nic_id: str) -> None:
        await self._steps.unbroken(self._machine(vm).remove_nic(nic_id))

    async def add_disk(self, vm: str, disk: Disk) -> None:
        await self._steps.unbroken(self._machine(vm).add_disk(disk))

    async def remove_disk(self, vm: str, disk_id: str) -> None:
        await self._steps.unbroken(self._machine(vm).remove_disk(disk_id))

    # -- streams

    async def open_channel(self, vm: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._machine(vm).open_channel()

    def journal(self, vm: str) -> Path:
        return self._machine(vm).files.journal

    async def rotate_journal(self, vm: str, *, keep: int) -> None:
        await self._steps.unbroken(self._machine(vm).rotate_journal(keep))

    async def console(self, vm: str, *, limit: int = 65536) -> bytes:
        return await asyncio.to_thread(tail, self._machine(vm).files.console, limit)

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

    async def _keep_house(self) -> None:
        """What nobody waits for: output of talkative guests."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL)
            for machine in list(self._machines.values()):
                if machine.power is not PowerState.OFF:
                    try:
                        await asyncio.to_thread(machine.trim)
                    except OSError as error:
                        _log.error("VM %s: console: %s", machine.id[:12], describe(error))
