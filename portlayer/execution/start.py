"""Powering a container's VM on: all or nothing.

claims → taps → boot configuration → record (intent ``running``) → power. Every
step before the power is taken back when a later one fails, in reverse order,
also when the operation is cancelled. From the power on, the supervisor answers
for the run.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.boot import GuestNetwork, boot_config
from portlayer.execution.claims import announce_claims, claim
from portlayer.execution.container import Container, Health, Run
from portlayer.execution.house import House
from portlayer.execution.record import Intent, JournalMark, Record
from portlayer.execution.settle import NOT_LAUNCHED_CODE
from portlayer.execution.states import Status
from portlayer.execution.supervisor import Supervisor
from portlayer.hypervisor.base import HypervisorError, LaunchError, Nic
from portlayer.journal.rotation import rotation_limit
from portlayer.journal.verdict import journal_end
from portlayer.operation import current_operation
from portlayer.portlayer_pb2 import Reason

__all__ = ["Starter"]

log = logging.getLogger(__name__)


class Starter:
    def __init__(self, house: House, supervisor: Supervisor) -> None:
        self._house = house
        self._supervisor = supervisor

    async def launch(self, container: Container, *, automatic: bool, checkpoint: str | None = None) -> Run:
        """Under the container's lock, from a stopped state. Await ``run.started`` for the outcome.

        Raises:
            PortLayerError: nothing of the start is left.
        """
        house = self._house
        size = house.registry.sizing.guest_size(container.spec.resources)
        house.registry.check_volumes_free(container, house.disk_volumes(container.spec))
        house.registry.check_running_limits(container, size)
        before = container.record
        run = Run(previous=container.status)
        container.move(Status.STARTING)  # from here on volumes and limits count this container
        try:
            async with AsyncExitStack() as undo:
                await self._prepare(container, undo, automatic=automatic, restored=checkpoint is not None)
                container.run = run
                container.health = Health()
                undo.push_async_callback(
                    self._undo, container, house.rooms.hypervisor.power_off, container.id
                )
                container.vm = await house.rooms.hypervisor.start(container.id, snapshot=checkpoint)
                undo.pop_all()
        except BaseException as error:
            container.run = None
            run.fail(error)
            first = run.previous is Status.CREATED
            container.move(Status.CREATED if first else Status.EXITED)
            if run.previous is Status.RESTARTING:
                container.notify_exit()
            if isinstance(error, PortLayerError | HypervisorError):
                await self._note_failure(container, before, str(error))
            if isinstance(error, LaunchError):
                raise PortLayerError(Reason.LAUNCH_FAILED, str(error), exit_code=NOT_LAUNCHED_CODE) from error
            raise
        announce_claims(house, container, started=True)
        self._supervisor.watch_over(container, run)
        return run

    async def _prepare(
        self, container: Container, undo: AsyncExitStack, *, automatic: bool, restored: bool
    ) -> None:
        house = self._house
        network, hypervisor = house.rooms.network, house.rooms.hypervisor
        before = container.record
        await self._supervisor.forwarder.check(container)
        claims = undo.enter_context(ExitStack())
        record = replace(before, spec=claim(house, container, claims))
        container.record = record
        undo.callback(setattr, container, "record", before)
        attachment = container.attachment(running=True)
        undo.push_async_callback(self._undo, container, network.unplug, container.id)
        plugged = await network.plug(attachment)
        nics = [Nic(id=nic.tap, mac=nic.mac, network=nic.bridge, mtu=nic.mtu) for nic in plugged]
        interfaces, resolver = network.interfaces(attachment)
        disks = house.vm_disks(container)
        shares, shared = await asyncio.to_thread(house.guest_shares, record.spec)
        boot = boot_config(
            container.id,
            record.spec,
            disks,
            GuestNetwork(interfaces=interfaces, resolver=resolver),
            shared=shared,
            operation=current_operation(),
        )
        await self._trim_journal(container)
        inode, size = await asyncio.to_thread(journal_end, hypervisor.journal(container.id))
        record = record.with_state(
            mark=JournalMark(inode=inode, size=size),
            rotated=False,
            restored=restored,
            requested_at=house.clock.now(),
            manual_stop=before.state.manual_stop and automatic,
            restart_count=before.state.restart_count if automatic else 0,
            error="",
        )
        if not automatic:
            container.backoff.reset()
        undo.push_async_callback(self._unsave, container, before)
        guest = house.registry.sizing.guest_size(record.spec.resources)
        await house.save(
            container,
            replace(record, intent=Intent.RUNNING),
            disks=disks,
            nics=nics,
            shares=shares,
            boot_config=boot,
            vcpus=guest.vcpus,
            memory_mib=guest.memory_mib,
        )

    async def _trim_journal(self, container: Container) -> None:
        """A full journal is rotated before the run, so that its mark stays valid as long as possible."""
        limit = rotation_limit(container.spec.log)
        hypervisor = self._house.rooms.hypervisor
        if limit is None:
            return
        _, size = await asyncio.to_thread(journal_end, hypervisor.journal(container.id))
        if size > limit.max_bytes:
            await self._house.rotate_journal(container, limit.keep)

    async def _unsave(self, container: Container, before: Record) -> None:
        if container.record.intent is Intent.RUNNING:
            await self._undo(container, self._house.save, container, before)

    async def _undo(self, container: Container, step: Any, *arguments: Any) -> None:
        """One step back. If it fails the others must still happen; a restart sweeps what is left."""
        try:
            await step(*arguments)
        except Exception:
            log.exception("container %s: a failed start could not be taken back fully", container.id[:12])

    async def _note_failure(self, container: Container, before: Record, words: str) -> None:
        """Docker shows why the last start failed."""
        record = before.with_state(error=words, exit_code=NOT_LAUNCHED_CODE)
        await self._undo(container, self._house.save, container, record)
