"""One VM on vSphere.

What it is comes from the collector alone (:meth:`Machine.hear`): a task's success is
reported after what it changed, so no call of ours patches the model. Calls that
change something hold the VM's lock.

Configuration and hardware are two things: ``extraConfig`` holds the configuration,
and a start makes the hardware what it says, in one reconfiguration. So a VM
that is off holds no disk of a start that has not happened, and vSphere HA restarts a
VM as it last ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import (
    ConcurrentAccess,
    Disk,
    HypervisorError,
    InvalidState,
    LaunchError,
    Nic,
    NoSuchVm,
    PowerState,
    VmConfig,
    VmEvent,
    VmEventKind,
    VmInfo,
)
from portlayer.hypervisor.durable import remove_directory
from portlayer.hypervisor.rotation import prune, shift, tail, trim
from portlayer.hypervisor.vsphere import hardware, keys
from portlayer.hypervisor.vsphere.calls import Calls
from portlayer.hypervisor.vsphere.channels import ChannelPort
from portlayer.hypervisor.vsphere.copying import Copies
from portlayer.hypervisor.vsphere.faults import translate
from portlayer.hypervisor.vsphere.host import Host, VmFiles
from portlayer.hypervisor.vsphere.keys import Record

__all__ = ["Machine"]

_DEVICES = "config.hardware.device"
_POWER = {
    "poweredOff": PowerState.OFF,
    "poweredOn": PowerState.ON,
    "suspended": PowerState.SUSPENDED,
}
_LAST_WORDS = 400
_SILENT_GUEST = 120.0
_log = logging.getLogger(__name__)


class Machine:
    def __init__(self, host: Host, vm: Any, values: Mapping[str, Any], record: Record) -> None:
        self._host = host
        self._record = record
        self._extra: dict[str, str] = {}
        self._power = PowerState.OFF  # as the contract sees it
        self._powered = PowerState.OFF  # as vSphere does
        self._change_version = ""
        self._lock = asyncio.Lock()
        self._port: ChannelPort | None = None
        self._cut = False  # we end this run
        self._reset = ""  # why it must end
        self._ending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.deleted = False
        self.calls = Calls(host.session, host.collector, record.config.id[:12], self._take)
        self.copies = Copies(self)
        self.calls.move(vm)
        self._take(values, quiet=True)

    @property
    def id(self) -> str:
        return self._record.config.id

    @property
    def files(self) -> VmFiles:
        return self._host.files(self.id)

    @property
    def host(self) -> Host:
        return self._host

    @property
    def record(self) -> Record:
        return self._record

    @property
    def power(self) -> PowerState:
        return self._power

    @property
    def powered(self) -> PowerState:
        """As vSphere sees it: a clone that waits for its start is off for us, and suspended there."""
        return self._powered

    def info(self) -> VmInfo:
        return VmInfo(config=self._record.config, version=self._record.version, power=self._power)

    # -- what the collector says

    def hear(self, vm: Any, values: Mapping[str, Any]) -> None:
        """Something of it changed. ``vm`` is another object after it was registered again."""
        self.calls.move(vm)
        self._take(values)

    def _take(self, values: Mapping[str, Any], *, quiet: bool = False) -> None:
        if "config.changeVersion" in values:
            self._change_version = str(values["config.changeVersion"])
        if "config.extraConfig" in values:
            self._take_extra(values["config.extraConfig"])
        if "runtime.powerState" in values:
            self._powered = _POWER[str(values["runtime.powerState"])]
        self._take_power(quiet=quiet)

    def _take_extra(self, options: list[Any]) -> None:
        extra = keys.relevant({str(o.key): str(o.value) for o in options})
        before, self._extra = self._extra, extra
        if extra.get(keys.VERSION.name) != before.get(keys.VERSION.name):
            try:
                self._record = keys.decode(extra, self._host.seal)
            except HypervisorError as error:
                _log.error("VM %s: %s", self.id[:12], error)
        old, new = before.get(keys.RUN.name, ""), extra.get(keys.RUN.name, "")
        if new and self._port is not None:
            self._port.guest_listens()
        if old and new and old != new and self._power is PowerState.ON and not self._reset:
            # The contract knows no reboot: what was started has ended.
            self._reset = "the guest was reset"
            self._spawn(self._cut_after_reset())

    async def _cut_after_reset(self) -> None:
        try:
            await self.power_off(ours=False)
        except HypervisorError as error:
            _log.error("VM %s was reset and cannot be powered off: %s", self.id[:12], error)

    def _take_power(self, *, quiet: bool) -> None:
        # A clone that was never started is off, whatever its memory is kept in.
        power = PowerState.OFF if self._restores else self._powered
        before, self._power = self._power, power
        if quiet or power is before:
            return
        if power is PowerState.OFF:
            self._ending = self._spawn(self._ended())
        elif power is PowerState.SUSPENDED:
            self._tell(VmEventKind.SUSPENDED)
        elif before is PowerState.SUSPENDED:
            self._tell(VmEventKind.RESUMED)
        else:
            self._cut, self._reset = False, ""
            if self._port is None:  # somebody else started it
                self._spawn(self._adopt_run())
            self._tell(VmEventKind.POWERED_ON)

    @property
    def _restores(self) -> bool:
        """Whether its first start goes on with its source's memory."""
        return keys.RESTORES.name in self._extra

    async def _ended(self) -> None:
        """The run is over: let go of its line, and say why it ended."""
        goodbye = keys.GOODBYE.name in self._extra
        port, self._port = self._port, None
        if port is not None:
            await port.close()
        if self._cut:
            detail = "power-off"
        elif goodbye:
            detail = "guest-shutdown"
        elif not self._reset and await self._cut_by_somebody():
            detail = "power-off"
        else:
            words = (await asyncio.to_thread(tail, self.files.console, _LAST_WORDS)).decode(errors="replace")
            reason = self._reset or "its power went off"
            detail = f"crashed: {reason}; {' '.join(words.split()) or 'not a word'}"
        self._ending = None
        self._tell(VmEventKind.POWERED_OFF, detail)

    async def _cut_by_somebody(self) -> bool:
        try:
            user = await self.calls.who_powered_off()
        except HypervisorError as error:
            _log.warning("VM %s: who powered it off? %s", self.id[:12], error)
            return False
        if user:
            _log.info("VM %s was powered off by %s", self.id[:12], user)
        return bool(user)

    def tell_removed(self) -> None:
        """It is gone, by our doing or somebody else's."""
        if not self.deleted:
            self.deleted = True
            self._tell(VmEventKind.REMOVED)

    def _tell(self, kind: VmEventKind, detail: str = "") -> None:
        _log.info("VM %s %s %s", self.id[:12], kind.value, detail)
        self._host.emit(VmEvent(id=self.id, kind=kind, detail=detail))

    # -- a former life's run

    async def attach(self, devices: list[Any] | None = None) -> None:
        """Take hold of what is there: files, and the line of a VM that runs."""
        await asyncio.to_thread(self.files.create)
        if self._restores:
            await self.copies.finish_clone_held()
        elif self._power is not PowerState.OFF:
            await self._adopt_run(devices)

    async def _adopt_run(self, devices: list[Any] | None = None) -> None:
        try:
            ports = hardware.serial_devices(devices or await self.calls.devices())
            number = int(str(ports.channel.backing.serviceURI).rpartition(":")[2])
            port = ChannelPort(self.id)
            self._port = port
            port.guest_listens()
            try:
                await port.listen(self._host.target.channel_host, number)
            except OSError as error:
                _log.warning("VM %s: port %d: %s; it gets another", self.id[:12], number, error)
                await port.listen(self._host.target.channel_host)
                await self._dial(port)
        except (HypervisorError, ValueError) as error:
            # It runs, so it is ON; whoever needs its channel hears what is wrong.
            _log.error("VM %s runs and its channel cannot be reached: %s", self.id[:12], error)

    async def _dial(self, port: ChannelPort) -> None:
        async def build(seen: Mapping[str, Any]) -> Any:
            ports = hardware.serial_devices(seen[_DEVICES])
            return vim.vm.ConfigSpec(
                deviceChange=[hardware.edit_serial(ports.channel, uri=self.channel_uri(port.number))]
            )

        await self.calls.reconfigure(build, "channel", fresh=True)

    def channel_uri(self, number: int) -> str:
        return f"tcp://{self._host.target.channel_host}:{number}"

    async def detach(self) -> None:
        """Let go; the VM keeps running."""
        async with self._lock:
            if self._ending is not None:
                await self._ending
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            port, self._port = self._port, None
            if port is not None:
                await port.close()

    # -- configuration

    async def configure(self, config: VmConfig, version: int) -> VmInfo:
        async with self.held():
            if version != self._record.version:
                raise self._stale(version)
            hardware.check_config(config)
            await self._save(config)
            return self.info()

    def _stale(self, version: int) -> ConcurrentAccess:
        return ConcurrentAccess(
            f"VM {self.id[:12]} has version {self._record.version}, the change was made to {version}"
        )

    async def _save(self, config: VmConfig, devices: Any = None) -> None:
        """Write the configuration, and in the same step what ``devices`` says of the hardware.

        ``devices``: from the VM's devices to (changes, addresses of its disks); None: leave them.
        """
        record = Record(config=config, version=self._record.version + 1)
        expected = self._record.version

        async def build(seen: Mapping[str, Any]) -> Any | None:
            if self._record.version == record.version and seen:
                return None  # the answer was lost, the change was not
            if self._record.version != expected:
                raise self._stale(expected)
            values = keys.encode(record, self._host.config.id, self._host.seal, unless=self._known())
            values = keys.changes(self._extra, values)
            spec = vim.vm.ConfigSpec(changeVersion=self._change_version)
            if config.name != self._record.config.name:
                spec.name = hardware.display_name(config)
            if devices is not None:
                spec.deviceChange, extra = devices(seen[_DEVICES])
                values |= extra
            spec.extraConfig = hardware.options(values)
            return spec

        await self.calls.reconfigure(build, "configure", fresh=devices is not None)

    def _known(self) -> tuple[Record, Mapping[str, str]]:
        return self._record, self._extra

    # -- power

    async def start(self) -> VmInfo:
        async with self.held():
            if self._ending is not None:
                await self._ending
            self._require(PowerState.OFF)
            await asyncio.to_thread(self.files.touch)
            self._cut, self._reset = False, ""
            port = ChannelPort(self.id)
            try:
                restores = self._restores
                await (self._prepare_clone(port) if restores else self._prepare(port))
                self._port = port
                self._spawn(self._expect_guest(port))
                await self.calls.settle(
                    self.calls.vm.PowerOnVM_Task, "power on", lambda power: power == "poweredOn"
                )
                if restores:
                    await self._forget_memory()
            except (HypervisorError, vmodl.MethodFault, OSError) as error:
                await self._abandon_start(port)
                raise self._launch_error(error) from error
            return self.info()

    async def _abandon_start(self, port: ChannelPort) -> None:
        """A power-on that failed may have worked all the same: the VM is off again."""
        try:
            await self.calls.look()
            if self._powered is PowerState.ON:
                await self.cut_power(ours=True)
        except HypervisorError as error:
            _log.error("VM %s: after a start that failed: %s", self.id[:12], error)
        if self._port is port:
            self._port = None
        await port.close()

    async def _expect_guest(self, port: ChannelPort) -> None:
        """A guest that cannot say by guestinfo that it listens is spoken to all the same."""
        await asyncio.sleep(0 if keys.RUN.name in self._extra else _SILENT_GUEST)
        port.guest_listens()

    def _launch_error(self, error: BaseException) -> HypervisorError:
        if isinstance(error, (InvalidState, NoSuchVm)):
            return error
        return LaunchError(str(translate(error, f"VM {self.id[:12]}: start")))

    async def _prepare(self, port: ChannelPort) -> None:
        await port.listen(self._host.target.channel_host)
        config = self._record.config
        backings = {nic.id: await self._host.networks.backing(nic) for nic in config.nics}

        async def build(seen: Mapping[str, Any]) -> Any:
            devices = seen[_DEVICES]
            channel = hardware.edit_serial(
                hardware.serial_devices(devices).channel, uri=self.channel_uri(port.number)
            )
            spec, addresses = hardware.start_spec(devices, config, self._host.places, backings, channel)
            spec.extraConfig = hardware.options(keys.start_values(config, addresses))
            return spec

        await self.calls.reconfigure(build, "prepare the start", fresh=True)

    async def _prepare_clone(self, port: ChannelPort) -> None:
        """A suspended VM cannot be changed: it dials where it was told when it was made."""
        ports = hardware.serial_devices(await self.calls.devices())
        number = int(str(ports.channel.backing.serviceURI).rpartition(":")[2])
        await port.listen(self._host.target.channel_host, number)
        port.guest_listens()

    async def _forget_memory(self) -> None:
        """The memory was for one start."""

        async def build(_seen: Mapping[str, Any]) -> Any:
            return vim.vm.ConfigSpec(extraConfig=hardware.options({keys.RESTORES.name: ""}))

        await self.calls.reconfigure(build, "forget the source", fresh=True)

    async def power_off(self, *, ours: bool = True) -> None:
        # without the lock first: whoever holds it may wait for a guest that does not answer
        if self._power is not PowerState.OFF:
            await self.cut_power(ours=ours)
        async with self.held():
            if self._power is not PowerState.OFF:
                await self.cut_power(ours=ours)

    async def cut_power(self, *, ours: bool) -> None:
        self._cut = self._cut or (ours and not self._reset)
        try:
            await self.calls.settle(
                self.calls.vm.PowerOffVM_Task, "power off", lambda power: power == "poweredOff"
            )
        except vmodl.MethodFault as error:
            raise translate(error, f"VM {self.id[:12]}: power off") from error

    async def suspend(self) -> None:
        async with self.held():
            self._require(PowerState.ON)
            await self.settle(self.calls.vm.SuspendVM_Task, "suspend", "suspended")

    async def resume(self) -> None:
        async with self.held():
            self._require(PowerState.SUSPENDED)
            await self.settle(self.calls.vm.PowerOnVM_Task, "resume", "poweredOn")

    async def settle(self, begin: Any, what: str, wanted: str) -> None:
        try:
            await self.calls.settle(begin, what, lambda power: power == wanted)
        except vmodl.MethodFault as error:
            raise translate(error, f"VM {self.id[:12]}: {what}") from error

    async def delete(self) -> None:
        async with self._lock:
            if self.deleted:
                return
            if self._ending is not None:
                await self._ending
            self._require(PowerState.OFF)
            if self._powered is not PowerState.OFF:  # a clone that was never started
                await self.cut_power(ours=True)
            try:
                await self._detach_disks()
                await self.calls.destroy()
            except NoSuchVm:
                _log.info("VM %s was gone already", self.id[:12])
            await asyncio.to_thread(remove_directory, self.files.path)
            self.tell_removed()

    async def _detach_disks(self) -> None:
        async def build(seen: Mapping[str, Any]) -> Any | None:
            changes = hardware.remove_disks(seen[_DEVICES])
            return vim.vm.ConfigSpec(deviceChange=changes) if changes else None

        await self.calls.reconfigure(build, "detach the disks", fresh=True)

    # -- hot plug

    async def add_disk(self, disk: Disk) -> None:
        async with self.held():
            self._require_on()
            config = self._record.config
            wanted = dataclasses.replace(config, disks=_with(config.disks, disk))
            hardware.check_config(wanted)
            places = self._host.places
            file = places.remote(disk.path)

            def change(devices: list[Any]) -> tuple[list[Any], dict[str, str]]:
                addresses = hardware.disk_addresses(devices, wanted, places)
                if disk.id in addresses:
                    self._require_same(disk, config.disks)
                    return [], {}
                taken = hardware.units(devices)
                added = hardware.add_disk(devices, disk, file, number=0, taken=taken)
                addresses[disk.id] = f"0:0:{added.device.unitNumber}:0"
                return [added], keys.disk_values(addresses)

            await self._save(wanted, change)

    async def remove_disk(self, disk_id: str) -> None:
        async with self.held():
            self._require_on()
            config = self._record.config
            known = next((disk for disk in config.disks if disk.id == disk_id), None)
            if known is None:
                raise HypervisorError(f"VM {self.id[:12]} has no disk {disk_id}")
            left = dataclasses.replace(config, disks=tuple(d for d in config.disks if d.id != disk_id))
            places = self._host.places
            file = places.remote(known.path)

            def change(devices: list[Any]) -> tuple[list[Any], dict[str, str]]:
                device = hardware.disk_device(devices, file)
                removed = [] if device is None else [hardware.remove(device)]
                return removed, keys.disk_values(hardware.disk_addresses(devices, left, places))

            await self._save(left, change)

    async def add_nic(self, nic: Nic) -> None:
        async with self.held():
            self._require_on()
            config = self._record.config
            wanted = dataclasses.replace(config, nics=_with(config.nics, nic))
            hardware.check_config(wanted)
            backing = await self._host.networks.backing(nic)

            def change(devices: list[Any]) -> tuple[list[Any], dict[str, str]]:
                if hardware.nic_device(devices, nic.mac) is not None:
                    self._require_same(nic, config.nics)
                    return [], {}
                return [hardware.add_nic(nic, backing, number=0)], {}

            await self._save(wanted, change)

    async def remove_nic(self, nic_id: str) -> None:
        async with self.held():
            self._require_on()
            config = self._record.config
            known = next((nic for nic in config.nics if nic.id == nic_id), None)
            if known is None:
                raise HypervisorError(f"VM {self.id[:12]} has no NIC {nic_id}")
            left = dataclasses.replace(config, nics=tuple(n for n in config.nics if n.id != nic_id))

            def change(devices: list[Any]) -> tuple[list[Any], dict[str, str]]:
                device = hardware.nic_device(devices, known.mac)
                return ([] if device is None else [hardware.remove(device)]), {}

            await self._save(left, change)

    def _require_same(self, device: Disk | Nic, configured: tuple[Disk | Nic, ...] | Any) -> None:
        for known in configured:
            if known.id == device.id and known != device:
                raise HypervisorError(f"VM {self.id[:12]}: {device.id} is there already, as {known}")

    # -- for its copies

    async def change(self, begin: Callable[[], Any], what: str) -> Any:
        try:
            return await self.calls.task(begin, what)
        except vmodl.MethodFault as error:
            raise translate(error, f"VM {self.id[:12]}: {what}") from error

    # -- streams

    async def open_channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._power is PowerState.OFF:
            raise InvalidState(f"VM {self.id[:12]} is off; the call needs a running VM")
        if self._port is None:
            raise HypervisorError(f"VM {self.id[:12]}: its channel is not there yet")
        return await self._port.open()

    async def rotate_journal(self, keep: int) -> None:
        async with self.held():
            if self._power is PowerState.SUSPENDED:
                raise InvalidState(f"VM {self.id[:12]} is suspended: its journal cannot be moved")
            journal = self.files.journal
            await asyncio.to_thread(shift, journal, keep)
            await asyncio.to_thread(self.files.touch)
            if self._power is PowerState.ON:
                await self._reopen_journal()
            await asyncio.to_thread(prune, journal, keep)

    async def _reopen_journal(self) -> None:
        async def build(seen: Mapping[str, Any]) -> Any:
            port = hardware.serial_devices(seen[_DEVICES]).journal
            file = self._host.layout(self.id).journal
            return vim.vm.ConfigSpec(deviceChange=[hardware.edit_serial(port, file=file)])

        await self.calls.reconfigure(build, "reopen the journal", fresh=True)

    def trim(self) -> None:
        """Bound what a talkative guest makes of its console."""
        trim(self.files.console)

    # -- inside

    def _require(self, wanted: PowerState) -> None:
        if self._power is not wanted:
            raise InvalidState(f"VM {self.id[:12]} is {self._power.value}; the call needs {wanted.value}")

    def _require_on(self) -> None:
        """vSphere changes no hardware of a suspended VM, whose guest could not let go of it either."""
        if self._power is not PowerState.ON:
            raise InvalidState(f"VM {self.id[:12]} is {self._power.value}; the call needs a running VM")

    def _spawn(self, step: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The VM's lock, and the certainty that the VM still exists."""
        async with self._lock:
            if self.deleted:
                raise NoSuchVm(f"VM {self.id[:12]} does not exist any more")
            yield


def _with(devices: Any, device: Any) -> tuple[Any, ...]:
    """``device`` in place of the one of its name, or at the end."""
    result = [device if known.id == device.id else known for known in devices]
    if device not in result:
        result.append(device)
    return tuple(result)
