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
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
from portlayer.hypervisor.qemu.devices import check_config
from portlayer.hypervisor.qemu.durable import NEW
from portlayer.hypervisor.qemu.host import Host
from portlayer.hypervisor.qemu.launch import last_words, launch
from portlayer.hypervisor.qemu.memory import Migration, saved
from portlayer.hypervisor.qemu.monitor import EventHandler, Monitor, MonitorLost
from portlayer.hypervisor.qemu.process import QemuProcess
from portlayer.hypervisor.qemu.runtime import Launched
from portlayer.hypervisor.qemu.snapshot import Draft, check_clone, copy_disks
from portlayer.hypervisor.qemu.store import Record, VmDirectory, decode

__all__ = ["Machine", "Run"]

QUIT_TIMEOUT = 5.0
DEATH_TIMEOUT = 30.0
ATTACH_TIMEOUT = 10.0
_log = logging.getLogger(__name__)


class Run:
    """A running QEMU and what we know about it."""

    def __init__(self) -> None:
        self.process: QemuProcess | None = None
        self.monitor: Monitor | None = None
        self.launched = Launched(profile="", accelerator="")
        self.channel: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()
        self.shutdown = ""  # what QEMU said about its end
        self.cut = False  # we ended it
        self.frozen = False  # stopped by us for a moment (snapshot): nobody's business
        self.migration = Migration()
        self.unplugged = hotplug.Unplugged()


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
        self._tasks: set[asyncio.Task[None]] = set()

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
        pid = self._run.process.pid if self._run is not None and self._run.process is not None else 0
        return VmInfo(config=self._record.config, version=self._record.version, power=self._power, pid=pid)

    # -- a former life's run

    async def attach(self) -> None:
        """Find out whether the VM runs, and take hold of it if so.

        Raises:
            HypervisorError: a process holds the VM's lock and cannot be found.
        """
        await asyncio.to_thread(self._host.store.ensure_streams, self.id)
        pid = await self._find()
        if pid is None:
            if self._rundir.path.exists():
                _log.warning("VM %s ended while nobody watched: %s", self.id[:12], self._last_words())
                self._rundir.remove()
            return
        run = Run()
        run.launched = self._rundir.launched()
        try:
            run.process = QemuProcess(pid)
        except ProcessLookupError:
            self._rundir.remove()
            return
        self._adopt(run)
        self._power = PowerState.ON
        try:
            monitor = await self._session(run)
            await journal.reopen(monitor, self._directory.journal)
            run.launched = await hotplug.reconcile(monitor, run.launched, run.unplugged, vm=self.id)
            self._rundir.note_launched(run.launched)
        except HypervisorError as error:
            # It runs, so it is ON; whoever needs the monitor will try again.
            _log.error("VM %s runs (pid %d) but does not answer: %s", self.id[:12], pid, error)

    async def _find(self) -> int | None:
        async with asyncio.timeout(ATTACH_TIMEOUT):
            while True:
                pid = await asyncio.to_thread(self._rundir.process)
                if pid is not None or not self._rundir.held():
                    return pid
                # forked and not yet executed, or dying: either takes milliseconds
                await asyncio.sleep(0.02)

    async def detach(self) -> None:
        """Let go; the VM keeps running."""
        async with self._lock:
            run, self._run = self._run, None
            for task in self._tasks:
                task.cancel()
            if run is None:
                return
            if run.channel is not None:
                run.channel.transport.abort()
            if run.monitor is not None:
                await run.monitor.close()
            if run.process is not None:
                run.process.close()

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

    async def start(self) -> VmInfo:
        async with self._held():
            self._require(PowerState.OFF)
            run = Run()
            restored = self._directory.memory.exists()
            result = await launch(self._host, self._record.config, self._handler(run), run.migration)
            run.process, run.monitor, run.launched = result.process, result.monitor, result.launched
            self._directory.memory.unlink(missing_ok=True)  # its disks go on from here
            self._power = PowerState.ON
            self._adopt(run)
            self._tell(VmEventKind.POWERED_ON)
            if restored:
                await self._look(run)  # it goes on as its source was, which may be suspended
            return self.info()

    async def power_off(self) -> None:
        async with self._held():
            run = self._run
            if run is None:
                return
            run.cut = True
            assert run.process is not None
            try:
                async with asyncio.timeout(QUIT_TIMEOUT):
                    await (await self._session(run)).execute("quit")
                    await run.ended.wait()
            except (HypervisorError, TimeoutError) as error:
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
            await (await self._session(run)).execute("stop")
            self._change(PowerState.SUSPENDED)

    async def resume(self) -> None:
        async with self._held():
            run = self._require(PowerState.SUSPENDED)
            await (await self._session(run)).execute("cont")
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
            others = [known for known in config.nics if known.id != nic.id]
            check_config(dataclasses.replace(config, nics=(*others, nic)), self._host.profile)
            if nic.id not in run.launched.nics:
                await hotplug.add_nic(await self._session(run), nic, self._host.profile)
                self._note(run, dataclasses.replace(run.launched, nics=(*run.launched.nics, nic.id)))
            await self._save(dataclasses.replace(config, nics=(*others, nic)))

    async def remove_nic(self, nic_id: str) -> None:
        async with self._held():
            run = self._running()
            config = self._record.config
            left = tuple(nic for nic in config.nics if nic.id != nic_id)
            if nic_id in run.launched.nics:
                await hotplug.remove_nic(await self._session(run), nic_id, run.unplugged)
                nics = tuple(known for known in run.launched.nics if known != nic_id)
                self._note(run, dataclasses.replace(run.launched, nics=nics))
            elif len(left) == len(config.nics):
                raise HypervisorError(f"VM {self.id[:12]} has no NIC {nic_id}")
            if len(left) != len(config.nics):
                await self._save(dataclasses.replace(config, nics=left))

    async def add_disk(self, disk: Disk) -> None:
        async with self._held():
            run = self._running()
            config = self._record.config
            others = [known for known in config.disks if known.id != disk.id]
            check_config(dataclasses.replace(config, disks=(*others, disk)), self._host.profile)
            if disk.id not in run.launched.disks:
                target = await hotplug.add_disk(
                    await self._session(run), disk, self._host.profile, run.launched.disks.values()
                )
                self._note(
                    run, dataclasses.replace(run.launched, disks={**run.launched.disks, disk.id: target})
                )
            await self._save(dataclasses.replace(config, disks=(*others, disk)))

    async def remove_disk(self, disk_id: str) -> None:
        async with self._held():
            run = self._running()
            config = self._record.config
            left = tuple(disk for disk in config.disks if disk.id != disk_id)
            if disk_id in run.launched.disks:
                await hotplug.remove_disk(await self._session(run), disk_id, run.unplugged)
                disks = {known: target for known, target in run.launched.disks.items() if known != disk_id}
                self._note(run, dataclasses.replace(run.launched, disks=disks))
            elif len(left) == len(config.disks):
                raise HypervisorError(f"VM {self.id[:12]} has no disk {disk_id}")
            if len(left) != len(config.disks):
                await self._save(dataclasses.replace(config, disks=left))

    def _note(self, run: Run, launched: Launched) -> None:
        run.launched = dataclasses.replace(launched, plugged=True)
        if not run.ended.is_set():
            self._rundir.note_launched(run.launched)

    # -- copies

    async def snapshot(self, name: str) -> None:
        async with self._held():
            draft = Draft(self._directory.snapshots, name)
            try:
                await asyncio.to_thread(draft.begin)
                if self._run is None:
                    await copy_disks(self._record.config.disks, draft.path)
                else:
                    async with self._memory_saved(self._run, draft.memory):
                        await copy_disks(self._record.config.disks, draft.path)
                await asyncio.to_thread(draft.finish, self._record)
            except OSError as error:
                raise HypervisorError(f"VM {self.id[:12]}: snapshot {name}: {error}") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, draft.path, ignore_errors=True)

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
                async with self._memory_saved(self._run, path):
                    pass
                yield path
            finally:
                path.unlink(missing_ok=True)

    @asynccontextmanager
    async def _memory_saved(self, run: Run, path: Path) -> AsyncIterator[None]:
        """The VM stands still inside, and to everybody else it does not."""
        monitor = await self._session(run)
        run.frozen = True
        try:
            async with saved(monitor, run.migration, path, running=self._power is PowerState.ON):
                yield
        finally:
            run.frozen = False

    # -- streams

    async def open_channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._held():
            run = self._running()
            if run.channel is not None:
                run.channel.transport.abort()  # QEMU takes the next caller when this one has hung up
                run.channel = None
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._rundir.channel))
            except OSError as error:
                raise HypervisorError(f"VM {self.id[:12]}: channel: {error}") from error
            run.channel = writer
            return reader, writer

    async def rotate_journal(self, keep: int) -> None:
        async with self._held():
            monitor = None if self._run is None else await self._session(self._run)
            await asyncio.to_thread(journal.shift, self._directory.journal, keep)
            await asyncio.to_thread(self._host.store.ensure_streams, self.id)
            if monitor is not None:
                await journal.reopen(monitor, self._directory.journal)
            await asyncio.to_thread(journal.prune, self._directory.journal, keep)

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

    async def _session(self, run: Run) -> Monitor:
        """The monitor, connected again if need be."""
        if run.monitor is not None and run.monitor.connected:
            return run.monitor
        if run.monitor is not None:
            await run.monitor.close()
        if run.ended.is_set():
            raise MonitorLost(f"VM {self.id[:12]} is off")
        run.monitor = await Monitor.connect(
            self.id, self._rundir.monitor, self._handler(run), timeout=ATTACH_TIMEOUT
        )
        await self._look(run)
        return run.monitor

    async def _look(self, run: Run) -> None:
        assert run.monitor is not None
        status = await run.monitor.execute("query-status")
        self._change(PowerState.ON if status["running"] else PowerState.SUSPENDED)

    def _adopt(self, run: Run) -> None:
        assert run.process is not None
        self._run = run
        run.process.on_end(lambda: self._spawn_task(self._end(run)))

    def _spawn_task(self, step: Any) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, run: Run) -> None:
        """The process is gone: tidy up, and say why."""
        assert run.process is not None
        if run.monitor is not None:
            await run.monitor.drain()
            await run.monitor.close()
        detail = self._why(run)
        run.unplugged.fail(MonitorLost(f"VM {self.id[:12]} ended"))
        run.migration.fail(MonitorLost(f"VM {self.id[:12]} ended"))
        if run.channel is not None:
            run.channel.close()
        run.process.close()
        self._rundir.remove()
        if self._host.cgroups is not None:
            self._host.cgroups.remove(self.id)
        self._run = None
        self._power = PowerState.OFF
        run.ended.set()
        self._tell(VmEventKind.POWERED_OFF, detail)

    def _why(self, run: Run) -> str:
        assert run.process is not None
        if run.cut or run.shutdown == "host-qmp-quit":
            return "power-off"
        if run.shutdown == "guest-shutdown":
            return "guest-shutdown"
        if run.shutdown:
            return f"crashed: {run.shutdown}; {self._last_words()}"
        return f"crashed: QEMU {run.process.status or 'vanished'}; {self._last_words()}"

    def _last_words(self) -> str:
        return last_words(self._rundir, self._directory)

    def _handler(self, run: Run) -> EventHandler:
        return lambda name, data: self._event(run, name, data)

    def _event(self, run: Run, name: str, data: Mapping[str, Any]) -> None:
        if name == "SHUTDOWN":
            run.shutdown = str(data.get("reason", "shutdown without a reason"))
        elif name == "STOP" and not run.frozen and not run.shutdown:
            self._change(PowerState.SUSPENDED)
        elif name == "RESUME" and not run.frozen:
            self._change(PowerState.ON)
        elif name == "DEVICE_DELETED" and "device" in data:
            run.unplugged.gone(str(data["device"]))
        elif name == "MIGRATION":
            run.migration.event(str(data.get("status")))

    def _change(self, power: PowerState) -> None:
        if self._power is power or self._run is None:
            return
        self._power = power
        self._tell(VmEventKind.SUSPENDED if power is PowerState.SUSPENDED else VmEventKind.RESUMED)

    def _tell(self, kind: VmEventKind, detail: str = "") -> None:
        _log.info("VM %s %s %s", self.id[:12], kind.value, detail)
        self._emit(VmEvent(id=self.id, kind=kind, detail=detail))


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
