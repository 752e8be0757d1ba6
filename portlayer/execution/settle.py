"""The beginning and the end of a run, written down.

:meth:`Settler.settle` is called once a run, when its VM is off, under the
container's lock. It never raises for a failed clean-up: an exit must always
reach those who wait for it; what could not be written is derived again from the
journal after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.claims import announce_claims, release_claims
from portlayer.execution.container import Container, Run
from portlayer.execution.house import House
from portlayer.execution.record import Intent, Record
from portlayer.execution.restart import at_exit
from portlayer.execution.states import Status
from portlayer.hypervisor.base import HypervisorError
from portlayer.journal.verdict import ending
from portlayer.portlayer_pb2 import ContainerEvent, Reason
from tether.tether_pb2 import HealthEvent, MainState

__all__ = ["KILLED_CODE", "NOT_LAUNCHED_CODE", "Settler"]

log = logging.getLogger(__name__)

KILLED_CODE = 137  # 128 + SIGKILL: what a VM without power exits with
NOT_LAUNCHED_CODE = 128


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    began: bool
    exit_code: int
    error: str = ""
    oom_killed: bool = False
    finished_at: int = 0


class Settler:
    def __init__(self, house: House) -> None:
        self._house = house

    def begun(self, container: Container, run: Run, state: MainState) -> None:
        """The process runs (or ran): the start has succeeded."""
        if run.begun:
            return
        run.begun = True
        now = self._house.clock.now()
        started = _plausible(state.started_at, container.record.state.requested_at, now)
        container.record = container.record.with_state(started_at=started)
        if container.spec.HasField("health") and container.spec.health.test:
            container.health.status = HealthEvent.STARTING
        if container.status is Status.STARTING:
            container.move(Status.RUNNING)
            self._house.announce(container, ContainerEvent.STARTED)
        run.spoke.set()
        run.succeed()

    async def settle(self, container: Container, run: Run) -> float | None:
        """Record the end of ``run``; the delay before an automatic restart, if there is to be one."""
        outcome = await self._outcome(container, run)
        if outcome.began and not run.begun:
            self.begun(container, run, run.report or MainState(state=MainState.RUNNING))
        await self._clean_up(container)
        container.run = None
        if container.health.status != HealthEvent.NONE:
            container.health.status = HealthEvent.UNHEALTHY  # what Docker shows of a stopped monitor
        try:
            if outcome.began:
                return await self._exited(container, run, outcome)
            await self._failed(container, run, outcome)
            return None
        finally:
            run.ended.set()
            run.fail(PortLayerError(Reason.LAUNCH_FAILED, "the start was given up"))

    # -- what happened
    async def _outcome(self, container: Container, run: Run) -> _Outcome:
        report = run.report
        if report is None:
            mark = container.record.state.mark
            journal = self._house.rooms.hypervisor.journal(container.id)
            try:
                report = await asyncio.to_thread(ending, journal, mark.inode, mark.size)
            except OSError:
                log.exception("container %s: its journal cannot be read", container.id[:12])
            run.report = report
        now = self._house.clock.now()
        if report is not None and report.state == MainState.EXITED:
            return _Outcome(
                began=True,
                exit_code=report.exit_code & 0xFF,
                oom_killed=report.oom_killed,
                finished_at=_plausible(report.finished_at, container.record.state.started_at, now),
            )
        if report is not None and report.state == MainState.FAILED and not run.begun:
            code = report.exit_code if report.exit_code in (126, 127, 128) else NOT_LAUNCHED_CODE
            return _Outcome(began=False, exit_code=code, error=report.error or "the guest gave no reason")
        return self._silent(container, run, now)

    def _silent(self, container: Container, run: Run, now: int) -> _Outcome:
        """The VM went off and its guest said nothing."""
        if run.killed:
            words = "" if run.begun else "killed while it was starting"
        elif run.cut:
            words = run.cut
        else:
            words = (
                f"the virtual machine ended without reporting an exit ({run.off_detail or 'no reason given'})"
            )
        if run.console and not run.killed:
            words = f"{words}; its console ends with:\n{run.console}"
        code = KILLED_CODE if run.begun else NOT_LAUNCHED_CODE
        return _Outcome(began=run.begun, exit_code=code, error=words, finished_at=now)

    # -- what follows
    async def _exited(self, container: Container, run: Run, outcome: _Outcome) -> float | None:
        record = container.record
        restarts = record.state.restart_count
        again = (
            at_exit(
                record.spec.restart,
                exit_code=outcome.exit_code,
                restart_count=restarts,
                cancelled=run.restart_cancelled,
            )
            and container.status is not Status.STOPPING
        )
        ran = (outcome.finished_at - record.state.started_at) / 1e9
        record = record.with_state(
            exit_code=outcome.exit_code,
            error=outcome.error,
            oom_killed=outcome.oom_killed,
            finished_at=outcome.finished_at,
            restart_count=restarts + 1 if again else restarts,
        )
        await self._write(container, replace(record, intent=Intent.STOPPED))
        container.move(Status.RESTARTING if again else Status.EXITED)
        log.info("container %s exited with %d%s", container.id[:12], outcome.exit_code, _tail(outcome.error))
        self._house.announce(container, ContainerEvent.DIED, exit_code=outcome.exit_code)
        if again:
            self._house.announce(container, ContainerEvent.RESTARTING, exit_code=outcome.exit_code)
        container.notify_exit()
        return container.backoff.after_run(ran) if again else None

    async def _failed(self, container: Container, run: Run, outcome: _Outcome) -> None:
        """The start failed: the container is what it was, plus the reason."""
        first = run.previous is Status.CREATED
        record = container.record.with_state(exit_code=outcome.exit_code, error=outcome.error)
        await self._write(container, replace(record, intent=Intent.CREATED if first else Intent.STOPPED))
        container.move(Status.CREATED if first else Status.EXITED)
        log.info("container %s did not start%s", container.id[:12], _tail(outcome.error))
        if not first and run.previous is Status.RESTARTING:
            container.notify_exit()  # the policy gives up: it is not running any more
        answered = run.cut and not run.killed
        run.fail(
            PortLayerError(
                Reason.GUEST_LOST if answered else Reason.LAUNCH_FAILED,
                outcome.error,
                exit_code=outcome.exit_code,
            )
        )

    async def _write(self, container: Container, record: Record) -> None:
        record = replace(record, spec=release_claims(self._house, container.id, record.spec))
        try:
            await self._house.save(container, record)
        except (PortLayerError, HypervisorError):
            log.exception("container %s: its exit could not be recorded with its VM", container.id[:12])
            container.record = record

    async def _clean_up(self, container: Container) -> None:
        await self._attempt(container, self._house.rooms.network.unplug(container.id))
        announce_claims(self._house, container, started=False)

    async def _attempt(self, container: Container, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except Exception:
            log.exception("container %s: clean-up after its run failed", container.id[:12])


def _plausible(time: int, earliest: int, now: int) -> int:
    """The guest's clock where it makes sense, ours otherwise."""
    return time if earliest <= time <= now else now


def _tail(error: str) -> str:
    return f": {error[:500]!r}" if error else ""
