"""One VM: its durable record, and its run when it has one.

Every call that changes something holds the VM's lock. The end of the process is
the only thing that happens without it: a QEMU dies when it likes, and whoever
holds the lock at that moment gets its error from the monitor.

States: a VM is OFF exactly when ``_run`` is None; ON and SUSPENDED follow QEMU's
STOP and RESUME events, whoever caused them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from portlayer.hypervisor.base import (
    ConcurrentAccess,
    Disk,
    HypervisorError,
    InvalidState,
    Nic,
    NoSuchVm,
    PowerState,
    VmConfig,
    VmEvent,
    VmEventKind,
    VmInfo,
)
from portlayer.hypervisor.qemu import hotplug, journal
from portlayer.hypervisor.qemu.aside import put_back
from portlayer.hypervisor.qemu.devices import check_config
from portlayer.hypervisor.qemu.durable import NEW
from portlayer.hypervisor.qemu.host import Host
from portlayer.hypervisor.qemu.launch import hardware, last_words, launch
from portlayer.hypervisor.qemu.process import QemuProcess
from portlayer.hypervisor.qemu.run import Run
from portlayer.hypervisor.qemu.runtime import Launched
from portlayer.hypervisor.qemu.snapshot import (
    Draft,
    Snapshot,
    check_clone,
    check_plain,
    copy_disks,
    names,
)
from portlayer.hypervisor.qemu.store import Record, VmDirectory, decode

__all__ = ["Machine"]

QUIT_TIMEOUT = 5.0
DEATH_TIMEOUT = 30.0
T = TypeVar("T", Disk, Nic)
FIND_TIMEOUT = 10.0
_log = logging.getLogger(__name__)


class Machine:
    def __init__(self, host: Host, record: Record, emit: Callable[[VmEvent], None]) -> None:
        self._host = host
        self._record = record
        self._emit = emit
        self._directory = host.store.directory(record.config.id)
        self._rundir = host.run_directory(record.config.id)
        self._run: Run | None = None
        self._power = PowerState.OFF
        self._deleted = False
        self._lock = asyncio.Lock()
        self._ending: asyncio.Future[None] | None = None  # the tidying up after a run

    @property
    def id(self) -> str:
        return self._record.config.id

    @property
    def power(self) -> PowerState:
        return self._power

    @property
    def directory(self) -> VmDirectory:
        return self._directory

    @property
    def busy(self) -> bool:
        """Whether it runs, or somebody is about to change that."""
        return self._run is not None or self._lock.locked()

    def info(self) -> VmInfo:
        run = self._run
        return VmInfo(
            config=self._record.config,
            version=self._record.version,
            power=self._power,
            pid=0 if run is None else run.process.pid,
            plugged_nics=None if run is None else frozenset(run.launched.nics),
        )

    # -- a former life's run

    async def attach(self) -> None:
        """Find out whether the VM runs, and take hold of it if so.

        A VM whose lock is held by a process that we cannot find counts as off; the
        lock keeps it from being started again.
        """
        await asyncio.to_thread(self._host.store.ensure_streams, self.id)
        try:
            pid = await self._find()
        except TimeoutError:
            _log.error("VM %s: some process holds its lock and is not to be found", self.id[:12])
            return
        try:
            process = None if pid is None else QemuProcess(pid)
        except ProcessLookupError:
            process = None
        if process is None:
            if self._rundir.path.exists():
                _log.warning("VM %s ended while nobody watched: %s", self.id[:12], self._last_words())
                self._rundir.remove()
            return
        run = Run(self._rundir, self._change)
        run.begin(process, self._rundir.launched() or hardware(self._host, self._record.config, ""), None)
        self._power = PowerState.ON
        self._adopt(run)
        try:
            monitor = await run.session()
            await put_back(monitor, self._record.config.disks)
            await journal.reopen(monitor, self._directory.journal)
            seen = await hotplug.reconcile(monitor, run.launched, run.unplugged, vm=self.id)
        except HypervisorError as error:
            # It runs, so it is ON; whoever needs the monitor will try again.
            _log.error("VM %s runs (pid %d) but does not answer: %s", self.id[:12], process.pid, error)
        else:
            self._note(run, seen)

    async def _find(self) -> int | None:
        async with asyncio.timeout(FIND_TIMEOUT):
            while True:
                pid = await asyncio.to_thread(self._rundir.process)
                if pid is not None or not self._rundir.held():
                    return pid
                # forked and not yet executed, or dying: either takes milliseconds
                await asyncio.sleep(0.02)

    async def detach(self) -> None:
        """Let go; the VM keeps running."""
        async with self._lock:
            if self._ending is not None:
                await self._ending
            run, self._run = self._run, None
            if run is not None:
                await run.let_go()

    # -- configuration

    async def configure(self, config: VmConfig, version: int) -> VmInfo:
        async with self._held():
            if version != self._record.version:
                raise ConcurrentAccess(
                    f"VM {self.id[:12]} has version {self._record.version}, the change was made to {version}"
                )
            check_config(config, self._host.profile)
            await self._save(config)
            return self.info()

    async def _save(self, config: VmConfig) -> None:
        record = Record(config=config, version=self._record.version + 1)
        try:
            await asyncio.to_thread(self._host.store.save, record)
        except OSError as error:
            # What the disk says counts: the rename may have happened.
            self._record = decode(await asyncio.to_thread(self._directory.config.read_bytes))
            raise HypervisorError(f"VM {self.id[:12]}: configuration not saved: {error}") from error
        self._record = record

    # -- power

    async def start(self, snapshot: str | None = None) -> VmInfo:
        async with self._held():
            self._require(PowerState.OFF)
            run = Run(self._rundir, self._change)
            memory = self._directory.memory if self._directory.memory.exists() else None
            if snapshot is not None:
                memory = await asyncio.to_thread(self._revert, snapshot)
            started = await launch(self._host, self._record.config, run.handle, run.migration, memory=memory)
            run.begin(started.process, started.launched, started.monitor)
            self._directory.memory.unlink(missing_ok=True)  # its disks go on from here
            self._power = PowerState.ON
            self._adopt(run)
            self._tell(VmEventKind.POWERED_ON)
            if snapshot is not None:
                await (await run.session()).execute("cont")  # it stood still when its memory was saved
            elif memory is not None:
                await run.look()  # it goes on as its source was, which may be suspended
            return self.info()

    def _revert(self, snapshot: str) -> Path:
        source = Snapshot(self._directory.snapshots, snapshot)
        source.check(self._record.config)
        try:
            source.revert_disks(self._record.config.disks)
        except OSError as error:
            raise HypervisorError(f"VM {self.id[:12]}: snapshot {snapshot}: {error}") from error
        return source.memory

    async def power_off(self) -> None:
        run = self._run
        if run is not None:
            await self._cut(
                run
            )  # without the lock: whoever holds it may wait for a guest that does not answer
        async with self._held():
            if self._run is not None:
                await self._cut(self._run)

    async def _cut(self, run: Run) -> None:
        run.cut = True
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await (await run.session()).execute("quit")
                await run.ended.wait()
        except (HypervisorError, TimeoutError) as error:
            if run.process.alive:
                _log.warning("VM %s does not quit and is killed: %s", self.id[:12], error)
            run.process.kill()
        try:
            async with asyncio.timeout(DEATH_TIMEOUT):
                await run.ended.wait()
        except TimeoutError as error:
            raise HypervisorError(
                f"VM {self.id[:12]}: process {run.process.pid} was killed and is not gone"
            ) from error

    async def suspend(self) -> None:
        async with self._held():
            run = self._require(PowerState.ON)
            await (await run.session()).execute("stop")
            self._change(PowerState.SUSPENDED)

    async def resume(self) -> None:
        async with self._held():
            run = self._require(PowerState.SUSPENDED)
            await (await run.session()).execute("cont")
            self._change(PowerState.ON)

    async def delete(self) -> None:
        async with self._lock:
            if self._deleted:
                return
            self._require(PowerState.OFF)
            await asyncio.to_thread(self._host.store.delete, self.id)
            self._rundir.remove()
            self._deleted = True
            self._tell(VmEventKind.REMOVED)

    # -- hot plug

    async def add_nic(self, nic: Nic) -> None:
        async with self._held():
            run = self._running()
            config = self._record.config
            nics = _with(config.nics, nic)
            check_config(dataclasses.replace(config, nics=nics), self._host.profile)
            if nic.id in run.launched.nics:
                self._require_same(nic, config.nics)
            else:
                await hotplug.add_nic(await run.session(), nic, self._host.profile)
                self._note(run, run.launched.with_nic(nic.id))
            await self._save_hardware(nics=nics)

    async def remove_nic(self, nic_id: str) -> None:
        async with self._held():
            run = self._running()
            self._require_cooperation()
            left = tuple(nic for nic in self._record.config.nics if nic.id != nic_id)
            if nic_id in run.launched.nics:
                await hotplug.remove_nic(await run.session(), nic_id, run.unplugged)
                self._note(run, run.launched.without_nic(nic_id))
            elif left == self._record.config.nics:
                raise HypervisorError(f"VM {self.id[:12]} has no NIC {nic_id}")
            await self._save_hardware(nics=left)

    async def add_disk(self, disk: Disk) -> None:
        async with self._held():
            run = self._running()
            config = self._record.config
            disks = _with(config.disks, disk)
            check_config(dataclasses.replace(config, disks=disks), self._host.profile)
            if disk.id in run.launched.disks:
                self._require_same(disk, config.disks)
            else:
                taken = run.launched.disks.values()
                target = await hotplug.add_disk(await run.session(), disk, self._host.profile, taken)
                self._note(run, run.launched.with_disk(disk.id, target))
            await self._save_hardware(disks=disks)

    async def remove_disk(self, disk_id: str) -> None:
        async with self._held():
            run = self._running()
            self._require_cooperation()
            left = tuple(disk for disk in self._record.config.disks if disk.id != disk_id)
            if disk_id in run.launched.disks:
                await hotplug.remove_disk(await run.session(), disk_id, run.unplugged)
                self._note(run, run.launched.without_disk(disk_id))
            elif left == self._record.config.disks:
                raise HypervisorError(f"VM {self.id[:12]} has no disk {disk_id}")
            await self._save_hardware(disks=left)

    def _require_cooperation(self) -> None:
        if self._power is PowerState.SUSPENDED:
            raise InvalidState(f"VM {self.id[:12]} is suspended: its guest cannot let go of a device")

    async def _save_hardware(self, **changes: Any) -> None:
        config = dataclasses.replace(self._record.config, **changes)
        if config != self._record.config:
            await self._save(config)

    def _require_same(self, device: Nic | Disk, configured: Sequence[Nic | Disk]) -> None:
        """The running VM has a device of this name. Adding it again is a repeated call, or a mistake."""
        for known in configured:
            if known.id == device.id and known != device:
                raise HypervisorError(f"VM {self.id[:12]}: {device.id} is there already, as {known}")

    def _note(self, run: Run, launched: Launched) -> None:
        run.launched = launched
        if not run.ended.is_set():
            self._rundir.note_launched(run.launched)

    # -- copies

    async def snapshot(self, name: str, *, stop: bool) -> None:
        async with self._held():
            draft = Draft(self._directory.snapshots, name)
            disks, run = self._record.config.disks, self._run
            try:
                await asyncio.to_thread(draft.begin)
                if run is None:
                    await self._finish(draft)
                    return
                check_plain(run.launched)
                running = self._power is PowerState.ON
                async with run.memory_saved_without_disks(draft.memory, disks, running=running):
                    await self._finish(draft)
                    if stop:
                        await self._cut(run)
            except OSError as error:
                raise HypervisorError(f"VM {self.id[:12]}: snapshot {name}: {error}") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, draft.path, ignore_errors=True)

    async def _finish(self, draft: Draft) -> None:
        await copy_disks(self._record.config.disks, draft.path)
        await asyncio.to_thread(draft.finish, self._record)

    async def snapshots(self) -> list[str]:
        return await asyncio.to_thread(names, self._directory.snapshots)

    async def delete_snapshot(self, name: str) -> None:
        async with self._held():
            await asyncio.to_thread(Snapshot(self._directory.snapshots, name).delete)

    @asynccontextmanager
    async def state_for(self, clone: VmConfig) -> AsyncIterator[Path | None]:
        """A file with this VM's memory for ``clone`` to start from; None when this VM is off."""
        async with self._held():
            check_clone(self._record.config, clone, None if self._run is None else self._run.launched)
            if self._run is None:
                yield None
                return
            path = self._directory.path / f"{NEW}clone-{clone.id}"
            try:
                async with self._run.memory_saved(path, running=self._power is PowerState.ON):
                    pass
                yield path
            finally:
                path.unlink(missing_ok=True)

    # -- streams

    async def open_channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._running().open_channel()

    async def rotate_journal(self, keep: int) -> None:
        async with self._held():
            monitor = None if self._run is None else await self._run.session()
            await asyncio.to_thread(journal.shift, self._directory.journal, keep)
            await asyncio.to_thread(self._host.store.ensure_streams, self.id)
            if monitor is not None:
                await journal.reopen(monitor, self._directory.journal)
            await asyncio.to_thread(journal.prune, self._directory.journal, keep)

    async def listen(self) -> None:
        """Make a session again that ended while QEMU goes on: events would be missed."""
        run = self._run
        if run is None or not run.deaf or self._lock.locked():
            return
        try:
            await run.session()
        except HypervisorError as error:
            _log.error("VM %s runs (pid %d) but does not answer: %s", self.id[:12], run.process.pid, error)

    def trim(self) -> None:
        """Bound what a talkative guest makes of console and log."""
        journal.trim(self._directory.console)
        if self._run is not None:
            journal.trim(self._rundir.log)

    # -- inside

    def _held(self) -> _Held:
        return _Held(self)

    def _require(self, wanted: PowerState) -> Any:
        if self._power is not wanted:
            raise InvalidState(f"VM {self.id[:12]} is {self._power.value}; the call needs {wanted.value}")
        return self._run

    def _running(self) -> Run:
        if self._run is None:
            raise InvalidState(f"VM {self.id[:12]} is off; the call needs a running VM")
        return self._run

    def _adopt(self, run: Run) -> None:
        self._run = run
        run.process.on_end(lambda: self._begin_end(run))

    def _begin_end(self, run: Run) -> None:
        self._ending = asyncio.ensure_future(self._end(run))

    async def _end(self, run: Run) -> None:
        """The process is gone: tidy up, and say why."""
        await run.hear_out()
        detail = run.why(self._last_words())
        try:
            await run.let_go()
            self._rundir.remove()
            if self._host.cgroups is not None:
                self._host.cgroups.remove(self.id)
        except OSError as error:
            _log.error("VM %s: not tidied up: %s", self.id[:12], error)
        finally:
            self._run = None
            self._power = PowerState.OFF
            self._ending = None
            run.ended.set()
            self._tell(VmEventKind.POWERED_OFF, detail)

    def _last_words(self) -> str:
        return last_words(self._rundir, self._directory)

    def _change(self, power: PowerState) -> None:
        if self._power is power or self._run is None:
            return
        self._power = power
        self._tell(VmEventKind.SUSPENDED if power is PowerState.SUSPENDED else VmEventKind.RESUMED)

    def _tell(self, kind: VmEventKind, detail: str = "") -> None:
        _log.info("VM %s %s %s", self.id[:12], kind.value, detail)
        self._emit(VmEvent(id=self.id, kind=kind, detail=detail))


def _with(devices: Sequence[T], device: T) -> tuple[T, ...]:
    """``device`` in place of the one of its name, or at the end."""
    result = [device if known.id == device.id else known for known in devices]
    if device not in result:
        result.append(device)
    return tuple(result)


class _Held:
    """The VM's lock, and the certainty that the VM still exists."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def __aenter__(self) -> None:
        await self._machine._lock.acquire()
        if self._machine._deleted:
            self._machine._lock.release()
            raise NoSuchVm(f"VM {self._machine.id[:12]} does not exist any more")

    async def __aexit__(self, *exc: object) -> None:
        self._machine._lock.release()
