"""VMs in memory with journals in real files; they survive a restart of the port layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portlayer.hypervisor.base import (
    Capabilities,
    ConcurrentAccess,
    InvalidState,
    Nic,
    NoSuchVm,
    PowerState,
    VmConfig,
    VmEvent,
    VmEventKind,
    VmInfo,
)
from tests.portlayer.fakes.guest import FakeGuest

if TYPE_CHECKING:
    from tests.portlayer.world import World


@dataclass
class FakeVm:
    config: VmConfig
    journal: Path
    host: World
    version: int = 1
    power: PowerState = PowerState.OFF
    guest: FakeGuest | None = None
    console: bytes = b""
    snapshots: set[str] = field(default_factory=set)
    plugged_nics: set[str] = field(default_factory=set)

    def info(self) -> VmInfo:
        pid = 4242 if self.power is not PowerState.OFF else 0
        nics = frozenset(self.plugged_nics) if pid else None
        return VmInfo(config=self.config, version=self.version, power=self.power, pid=pid, plugged_nics=nics)

    def off(self, detail: str) -> None:
        if self.power is not PowerState.OFF:
            self.power = PowerState.OFF
            self.host.hypervisor.emit(VmEvent(id=self.config.id, kind=VmEventKind.POWERED_OFF, detail=detail))


class FakeHypervisor:
    """VMs that outlive the port layer."""

    def __init__(self, host: World, root: Path) -> None:
        self.host = host
        self.root = root
        self.vms: dict[str, FakeVm] = {}
        self._watchers: list[asyncio.Queue[VmEvent]] = []
        self.suspend_emits = True

    def emit(self, event: VmEvent) -> None:
        for queue in self._watchers:
            queue.put_nowait(event)

    def _vm(self, vm: str) -> FakeVm:
        if vm not in self.vms:
            raise NoSuchVm(vm)
        return self.vms[vm]

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def capabilities(self) -> Capabilities:
        return CAPABILITIES

    async def create(self, config: VmConfig) -> VmInfo:
        self.host.faults("hypervisor.create")
        directory = self.root / config.id
        directory.mkdir()
        self.vms[config.id] = FakeVm(config, directory / "journal", self.host)
        return self.vms[config.id].info()

    async def configure(self, config: VmConfig, *, version: int) -> VmInfo:
        self.host.faults("hypervisor.configure")
        vm = self._vm(config.id)
        if version != vm.version:
            raise ConcurrentAccess(f"{config.id}: version {version}, not {vm.version}")
        vm.config, vm.version = config, version + 1
        return vm.info()

    async def start(self, vm: str, *, snapshot: str | None = None) -> VmInfo:
        self.host.faults("hypervisor.start")
        machine = self._vm(vm)
        if machine.power is not PowerState.OFF:
            raise InvalidState(f"{vm} is on")
        machine.power = PowerState.ON
        machine.plugged_nics = {nic.id for nic in machine.config.nics}
        machine.guest = FakeGuest(machine, self.host)
        self.emit(VmEvent(id=vm, kind=VmEventKind.POWERED_ON))
        if snapshot is None:
            self.host.script(machine.guest)
        else:
            assert snapshot in machine.snapshots
            machine.guest.go_on()
        return machine.info()

    async def power_off(self, vm: str) -> None:
        self.host.faults("hypervisor.power_off")
        self._vm(vm).off("power-off")

    async def suspend(self, vm: str) -> None:
        self.host.faults("hypervisor.suspend")
        machine = self._vm(vm)
        if machine.power is not PowerState.ON:
            raise InvalidState(f"{vm} is {machine.power.value}, not on")
        machine.power = PowerState.SUSPENDED
        self.emit(VmEvent(id=vm, kind=VmEventKind.SUSPENDED))

    async def resume(self, vm: str) -> None:
        self.host.faults("hypervisor.resume")
        machine = self._vm(vm)
        if machine.power is not PowerState.SUSPENDED:
            raise InvalidState(f"{vm} is {machine.power.value}, not suspended")
        machine.power = PowerState.ON
        self.emit(VmEvent(id=vm, kind=VmEventKind.RESUMED))

    async def snapshot(self, vm: str, name: str, *, stop: bool = False) -> None:
        self.host.faults("hypervisor.snapshot")
        machine = self._vm(vm)
        machine.snapshots.add(name)
        if stop:
            machine.off("power-off")

    async def snapshots(self, vm: str) -> list[str]:
        return sorted(self._vm(vm).snapshots)

    async def delete_snapshot(self, vm: str, name: str) -> None:
        self._vm(vm).snapshots.remove(name)

    async def clone(self, vm: str, config: VmConfig) -> VmInfo:
        raise NotImplementedError

    async def delete(self, vm: str) -> None:
        self.host.faults("hypervisor.delete")
        machine = self.vms.pop(vm, None)
        if machine is not None:
            assert machine.power is PowerState.OFF
            for path in machine.journal.parent.iterdir():
                path.unlink()
            machine.journal.parent.rmdir()

    async def list(self) -> list[VmInfo]:
        return [vm.info() for vm in self.vms.values()]

    async def get(self, vm: str) -> VmInfo:
        return self._vm(vm).info()

    async def watch(self) -> AsyncIterator[VmEvent]:
        queue: asyncio.Queue[VmEvent] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def add_nic(self, vm: str, nic: Nic) -> None:
        self.host.faults("hypervisor.add_nic")
        machine = self._vm(vm)
        nics = [known for known in machine.config.nics if known.id != nic.id]
        machine.config = replace(machine.config, nics=[*nics, nic])
        machine.plugged_nics.add(nic.id)
        machine.version += 1

    async def remove_nic(self, vm: str, nic_id: str) -> None:
        self.host.faults("hypervisor.remove_nic")
        machine = self._vm(vm)
        machine.config = replace(machine.config, nics=[n for n in machine.config.nics if n.id != nic_id])
        machine.plugged_nics.discard(nic_id)
        machine.version += 1

    async def add_disk(self, vm: str, disk: Any) -> None:
        raise NotImplementedError

    async def remove_disk(self, vm: str, disk_id: str) -> None:
        raise NotImplementedError

    async def open_channel(self, vm: str) -> Any:
        raise NotImplementedError

    def journal(self, vm: str) -> Path:
        return self.root / vm / "journal"

    async def rotate_journal(self, vm: str, *, keep: int) -> None:
        rotate(self.journal(vm), keep)

    async def console(self, vm: str, *, limit: int = 65536) -> bytes:
        return self._vm(vm).console[-limit:]


def rotate(journal: Path, keep: int) -> None:
    """As the hypervisor does: older files move up, at most ``keep`` stay."""
    files = [journal, *(journal.with_name(f"{journal.name}.{n}") for n in range(1, 50))]
    for number in range(len(files) - 2, -1, -1):
        if files[number].exists():
            if number + 1 > keep:
                files[number].unlink()
            else:
                files[number].rename(files[number + 1])
    journal.touch()


CAPABILITIES = Capabilities(
    name="fake",
    version="1",
    accelerator="none",
    profile="fast",
    hot_add_nic=True,
    hot_add_disk=True,
    max_disks=8,
    max_nics=4,
    max_shares=4,
)
