"""After a restart: every container as it is, from the hypervisor, the records and the journals.

For each VM: what its record intends and what its power says decide, by the
table below. Whatever was half done when we died is finished or taken back here,
before the service answers its first call.

================  =====  ==================================================
intent            power  then
================  =====  ==================================================
created           off    CREATED
running           off    journal grew since the start's mark: settle the exit
                         from it (none there: 137); else the power never
                         came: what it was before
stopped           off    EXITED
removing          any    the removal is finished
any other         on     its NICs become what the record says, and it is
                         attached again: RUNNING, PAUSED, or STARTING when
                         the journal has no STARTED yet
unreadable        any    DEAD, with the reason; it can be removed
================  =====  ==================================================
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from portlayer.errors import PortLayerError
from portlayer.execution.change import Changer
from portlayer.execution.container import Container, Run
from portlayer.execution.house import House
from portlayer.execution.power import Power
from portlayer.execution.record import BadRecord, Intent, Record
from portlayer.execution.remove import Remover
from portlayer.execution.restart import at_recovery
from portlayer.execution.settle import Settler
from portlayer.execution.states import LIVE, Status
from portlayer.hypervisor.base import HypervisorError, PowerState, VmInfo
from portlayer.journal.verdict import grew_since, opening
from portlayer.portlayer_pb2 import ContainerSpec
from tether.tether_pb2 import MainState

__all__ = ["Recovery"]

log = logging.getLogger(__name__)


class Recovery:
    def __init__(self, house: House, power: Power, remover: Remover, changer: Changer) -> None:
        self._house = house
        self._power = power
        self._remover = remover
        self._changer = changer
        self._settler = Settler(house)

    async def recover(self) -> None:
        """Call once, before anything is served; power events are listened to already."""
        house = self._house
        vms = await house.rooms.hypervisor.list()
        for vm in vms:
            container = self._adopt(vm)
            house.registry.adopt(container)
        containers = house.registry.all()
        await house.rooms.disks.open([container.id for container in containers])
        attachments = [
            container.attachment(running=container.live)
            for container in containers
            if container.status is not Status.DEAD
        ]
        await house.rooms.network.open(attachments)
        for container in containers:
            try:
                await self._resume(container)
                self._power.supervisor.forwarder.begin(container)  # what is left of one that has ended, too
            except (PortLayerError, HypervisorError, OSError):
                log.exception("container %s could not be recovered fully", container.id[:12])
        log.info("recovered %d containers", len(containers))

    def start_policies(self) -> None:
        """Automatic starts of what was stopped, once the service is up."""
        for container in self._house.registry.all():
            state = container.record.state
            if container.status is not Status.EXITED:
                continue
            if at_recovery(
                container.spec.restart,
                exit_code=state.exit_code,
                restart_count=state.restart_count,
                manual_stop=state.manual_stop,
            ):
                task = asyncio.create_task(self._start(container), name=f"start {container.id[:12]}")
                self._house.keep_background(task)

    async def _start(self, container: Container) -> None:
        try:
            await self._power.start(container)
        except (PortLayerError, HypervisorError) as error:
            log.warning("container %s was not started: %s", container.id[:12], error)

    # -- what it is
    def _adopt(self, vm: VmInfo) -> Container:
        try:
            record = Record.from_extra(vm.config.extra)
        except BadRecord as error:
            log.error("VM %s: unreadable record: %s", vm.config.id, error)
            return _unreadable(vm, str(error))
        container = Container(vm.config.id, record, _status(record, vm))
        container.vm = vm
        return container

    async def _resume(self, container: Container) -> None:
        record, vm = container.record, container.vm
        assert vm is not None
        if container.status is Status.DEAD:
            return
        if record.intent is Intent.REMOVING:
            await self._remover.finish(container)
        elif container.status in LIVE:
            await self._reattach(container, vm)
        else:
            await self._house.rooms.network.unplug(container.id)
            if record.intent is Intent.RUNNING:
                await self._settle_missed(container)

    async def _reattach(self, container: Container, vm: VmInfo) -> None:
        """The VM ran on without us: taps, names and ports are back already (network.open)."""
        run = Run(previous=Status.CREATED if not container.record.state.started_at else Status.EXITED)
        run.adopted_at = self._house.clock.now()
        container.run = run
        state = await self._opening(container)
        if state is not None and state.state != MainState.FAILED:
            self._settler.begun(container, run, state)
        if vm.power is PowerState.SUSPENDED and container.status is Status.RUNNING:
            container.move(Status.PAUSED)
        self._power.supervisor.watch_over(container, run)
        if not _nics_are_as_recorded(container, vm):
            task = asyncio.create_task(
                self._changer.settle_nics(container), name=f"NICs of {container.id[:12]}"
            )
            self._house.keep_background(task)

    async def _opening(self, container: Container) -> MainState | None:
        state = container.record.state
        mark = state.mark
        paused = container.vm is not None and container.vm.power is PowerState.SUSPENDED
        if state.rotated or state.restored or paused:  # it has been RUNNING, whatever the journal still holds
            return MainState(state=MainState.RUNNING, started_at=state.started_at)
        journal = self._house.rooms.hypervisor.journal(container.id)
        return await asyncio.to_thread(opening, journal, mark.inode, mark.size)

    async def _settle_missed(self, container: Container) -> None:
        """It was to run, and its VM is off."""
        state, mark = container.record.state, container.record.state.mark
        journal = self._house.rooms.hypervisor.journal(container.id)
        if not (state.restored or await asyncio.to_thread(grew_since, journal, mark.inode, mark.size)):
            intent = Intent.STOPPED if container.record.state.started_at else Intent.CREATED
            await self._house.save(container, replace(container.record, intent=intent))
            return
        first = not container.record.state.started_at
        run = Run(previous=Status.CREATED if first else Status.EXITED)
        run.off.set()
        run.off_detail = "while the port layer was down"
        run.restart_cancelled = True  # the policy is asked once, with everybody else's
        container.run = run
        container.move(Status.STARTING)
        opened = await self._opening(container)
        if opened is not None and opened.state != MainState.FAILED:
            self._settler.begun(container, run, opened)
        async with container.lock:
            await self._settler.settle(container, run)


def _nics_are_as_recorded(container: Container, vm: VmInfo) -> bool:
    wanted = sorted(e.assigned_mac for e in container.spec.endpoints if e.assigned_mac)
    known = {nic.id for nic in vm.config.nics}
    return sorted(nic.mac for nic in vm.config.nics) == wanted and vm.plugged_nics in (None, known)


def _status(record: Record, vm: VmInfo) -> Status:
    if record.intent is Intent.REMOVING:
        return Status.REMOVING
    if vm.power is not PowerState.OFF:
        return Status.STARTING  # until the journal or the guest says more
    if record.intent is Intent.CREATED or not record.state.started_at:
        return Status.CREATED
    return Status.EXITED


def _unreadable(vm: VmInfo, reason: str) -> Container:
    spec = ContainerSpec(name=f"unreadable-{vm.config.id[:12]}")
    container = Container(vm.config.id, Record(spec=spec, intent=Intent.STOPPED), Status.DEAD)
    container.vm = vm
    container.problem = f"its record cannot be read: {reason}"
    return container
