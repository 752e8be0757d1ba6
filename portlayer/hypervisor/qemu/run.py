"""A running QEMU and what we know about it: from its first session to its last word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from portlayer.hypervisor.base import Disk, HypervisorError, PowerState
from portlayer.hypervisor.qemu.aside import disks_aside
from portlayer.hypervisor.qemu.hotplug import Unplugged
from portlayer.hypervisor.qemu.memory import Migration, saved
from portlayer.hypervisor.qemu.monitor import Monitor, MonitorLost
from portlayer.hypervisor.qemu.process import QemuProcess
from portlayer.hypervisor.qemu.runtime import Launched, RunDirectory

__all__ = ["Run"]

SESSION_TIMEOUT = 10.0


class Run:
    """``on_power`` hears when the vCPUs stop and go on, whoever caused it."""

    def __init__(self, directory: RunDirectory, on_power: Callable[[PowerState], None]) -> None:
        self._directory = directory
        self._on_power = on_power
        self._monitor: Monitor | None = None
        self._connecting = asyncio.Lock()
        self._process: QemuProcess | None = None
        self._channel: asyncio.StreamWriter | None = None
        self._shutdown = ""  # what QEMU said about its end
        self._frozen = False  # stopped by us for a moment: nobody's business
        self.launched = Launched(profile="", accelerator="")
        self.cut = False  # we ended it
        self.ended = asyncio.Event()  # and everything of it is tidied up
        self.migration = Migration()
        self.unplugged = Unplugged()

    @property
    def process(self) -> QemuProcess:
        assert self._process is not None, "a run is shared only once it has a process"
        return self._process

    def begin(self, process: QemuProcess, launched: Launched, monitor: Monitor | None) -> None:
        self._process = process
        self.launched = launched
        self._monitor = monitor

    # -- QEMU speaks

    def handle(self, name: str, data: Mapping[str, Any]) -> None:
        """Every QMP event comes here."""
        if name == "SHUTDOWN":
            self._shutdown = str(data.get("reason", "shutdown without a reason"))
        elif name == "STOP" and not self._frozen and not self._shutdown:
            self._on_power(PowerState.SUSPENDED)
        elif name == "RESUME" and not self._frozen:
            self._on_power(PowerState.ON)
        elif name == "DEVICE_DELETED" and "device" in data:
            self.unplugged.gone(str(data["device"]))
        elif name == "MIGRATION":
            self.migration.event(str(data.get("status")))

    def why(self, last_words: str) -> str:
        """The detail of the POWERED_OFF event."""
        if self.cut or self._shutdown == "host-qmp-quit":
            return "power-off"
        if self._shutdown == "guest-shutdown":
            return "guest-shutdown"
        cause = self._shutdown or f"QEMU {self.process.status or 'vanished'}"
        return f"crashed: {cause}; {last_words}"

    # -- we speak

    @property
    def deaf(self) -> bool:
        """Whether it runs and we would not hear what happens to it."""
        return self.process.alive and (self._monitor is None or not self._monitor.connected)

    async def session(self) -> Monitor:
        """The monitor, connected again if need be.

        Raises:
            MonitorLost: QEMU is gone or does not answer.
        """
        async with self._connecting:
            if self._monitor is not None and self._monitor.connected:
                return self._monitor
            if self._monitor is not None:
                await self._monitor.close()
            vm = self._directory.vm
            if not self.process.alive:
                raise MonitorLost(f"VM {vm[:12]} is ending")
            self._monitor = await Monitor.connect(
                vm, self._directory.monitor, self.handle, timeout=SESSION_TIMEOUT
            )
            await self._look(self._monitor)
            return self._monitor

    async def look(self) -> None:
        """Ask for the state instead of waiting for news of it."""
        await self._look(await self.session())

    async def _look(self, monitor: Monitor) -> None:
        status = await monitor.execute("query-status")
        self._on_power(PowerState.ON if status["running"] else PowerState.SUSPENDED)

    @asynccontextmanager
    async def memory_saved(self, path: Path, *, running: bool) -> AsyncIterator[None]:
        """The VM stands still inside, and to everybody else it does not."""
        monitor = await self.session()
        self._frozen = True
        try:
            async with saved(monitor, self.migration, path, running=running):
                yield
        finally:
            self._frozen = False

    @asynccontextmanager
    async def memory_saved_without_disks(
        self, path: Path, disks: Sequence[Disk], *, running: bool
    ) -> AsyncIterator[None]:
        """As :meth:`memory_saved`, of a VM whose disks QEMU would not save beside."""
        monitor = await self.session()
        self._frozen = True
        try:
            async with (
                disks_aside(monitor, disks, running=running),
                saved(monitor, self.migration, path, running=False),
            ):
                yield
        finally:
            self._frozen = False

    async def open_channel(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._channel is not None:
            self._channel.transport.abort()  # QEMU takes the next caller when this one has hung up
            self._channel = None
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._directory.channel))
        except OSError as error:
            raise HypervisorError(f"VM {self._directory.vm[:12]}: channel: {error}") from error
        if self._channel is not None:  # two callers at once: the later one has it
            self._channel.transport.abort()
        self._channel = writer
        return reader, writer

    # -- the end

    async def hear_out(self) -> None:
        """The process is gone: take in what it said last, and fail whoever waits for more."""
        if self._monitor is not None:
            await self._monitor.drain()
        lost = MonitorLost(f"VM {self._directory.vm[:12]} ended")
        self.unplugged.fail(lost)
        self.migration.fail(lost)

    async def let_go(self) -> None:
        """Close what we hold of it. A living QEMU goes on."""
        if self._channel is not None:
            self._channel.transport.abort() if self.process.alive else self._channel.close()
        if self._monitor is not None:
            await self._monitor.close()
        self.process.close()
