"""Watches over every run: from power-on to the recorded exit.

One task a run. It listens to the guest (channel) and to its journal, whichever
speaks first, sets time limits on a guest that does not become ready or does not
go away, and when the VM has no power it settles the run: exit code, network,
record, waiters, event, restart policy. Only the power state ends a run; what
the guest says about itself only explains it.

Invariant: a run whose VM is off is settled exactly once, under the container's
lock; a failure to clean up is logged and does not keep the rest from happening.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from portlayer.channel import ChannelClosed, ChannelError
from portlayer.execution.checkpoint import catch_up
from portlayer.execution.container import Container, Run
from portlayer.execution.forward import Forwarder
from portlayer.execution.house import House
from portlayer.execution.record import JournalMark
from portlayer.execution.relay import relay
from portlayer.execution.settle import Settler
from portlayer.execution.states import Status
from portlayer.hypervisor.base import HypervisorError, PowerState, VmEvent, VmEventKind
from portlayer.journal.rotation import keep_rotated, rotation_limit
from portlayer.journal.verdict import opening
from portlayer.portlayer_pb2 import ContainerEvent
from tether.tether_pb2 import Event, ExecState, HealthEvent, MainState, TimeSetReply, TimeSetRequest

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)
_LONGEST_ID = 256
_CONSOLE_TAIL = 2048
_BURST = 500  # events of one guest a second, at most
Part = Callable[[Container, Run], Coroutine[Any, Any, None]]


class Supervisor:
    def __init__(self, house: House, settler: Settler) -> None:
        self._house = house
        self._settler = settler
        self.forwarder = Forwarder(house)
        self._dispatcher: asyncio.Task[None] | None = None
        self.restart: Callable[[Container, float], None] = lambda _container, _delay: None

    async def open(self) -> None:
        """Listen to power events from now on."""
        events = self._house.rooms.hypervisor.watch()
        self._dispatcher = asyncio.create_task(self._dispatch(events), name="power events")
        await asyncio.sleep(0)  # it listens before anybody lists the VMs

    async def close(self) -> None:
        """Let go of every run; VMs keep running."""
        tasks = [c.run.supervisor for c in self._house.registry.all() if c.run and c.run.supervisor]
        if self._dispatcher is not None:
            tasks.append(self._dispatcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch_over(self, container: Container, run: Run) -> None:
        """``run``'s VM is on (or has just gone off): take care of it from here."""
        run.supervisor = asyncio.create_task(
            self._supervise(container, run), name=f"container {container.id[:12]}"
        )
        run.supervisor.add_done_callback(_complain)
        self.forwarder.begin(container)

    # -- power events
    async def _dispatch(self, events: AsyncIterator[VmEvent]) -> None:
        async for event in events:
            container = self._house.registry.find(event.id)
            if container is not None:
                self._power(container, event)

    def _power(self, container: Container, event: VmEvent) -> None:
        run = container.run
        if run is None:
            return
        if event.kind in (VmEventKind.POWERED_OFF, VmEventKind.REMOVED):
            run.off_detail = event.detail
            run.off.set()
        elif event.kind is VmEventKind.SUSPENDED and container.status is Status.RUNNING:
            self._outside(container, Status.PAUSED, ContainerEvent.PAUSED)
        elif event.kind is VmEventKind.RESUMED and container.status is Status.PAUSED:
            self._outside(container, Status.RUNNING, ContainerEvent.UNPAUSED)

    def _outside(self, container: Container, status: Status, kind: ContainerEvent.Kind.ValueType) -> None:
        """Somebody else paused or resumed the VM; our own calls hold the lock and have moved already."""
        if not container.lock.locked():
            container.move(status)
            self._house.announce(container, kind)

    # -- one run
    async def _supervise(self, container: Container, run: Run) -> None:
        hypervisor = self._house.rooms.hypervisor
        channel = self._house.rooms.channel(lambda: hypervisor.open_channel(container.id), container.id[:12])
        run.channel = channel
        await channel.start()
        helpers = [
            self._helper(container, run, part)
            for part in (
                self._follow_events,
                self._greet,
                self._read_opening,
                self._limit_time,
                self._rotate,
                self._relay,
            )
        ]
        try:
            await self._wait_off(container, run)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await channel.close()
        async with container.lock:
            delay = await self._settler.settle(container, run)
        if delay is not None:
            self.restart(container, delay)

    def _helper(self, container: Container, run: Run, part: Part) -> asyncio.Task[None]:
        """A part of the watch that may fail without ending it."""

        async def guarded() -> None:
            try:
                await part(container, run)
            except Exception:
                log.exception("container %s: a part of its watch failed", container.id[:12])

        return asyncio.create_task(guarded())

    async def _wait_off(self, container: Container, run: Run) -> None:
        """A late event of an earlier run does not end this one: the hypervisor has the last word."""
        while True:
            await run.off.wait()
            try:
                info = await self._house.rooms.hypervisor.get(container.id)
            except HypervisorError:
                return  # the VM is gone altogether
            if info.power is PowerState.OFF:
                container.vm = info
                return
            run.off.clear()

    async def _follow_events(self, container: Container, run: Run) -> None:
        """At a pace: a guest that floods us with events must not flood our subscribers."""
        assert run.channel is not None
        loop = asyncio.get_running_loop()
        burst, since = 0, loop.time()
        try:
            async for event in run.channel.events():
                self._event(container, run, event)
                burst += 1
                if burst == _BURST:
                    await asyncio.sleep(max(0.0, since + 1.0 - loop.time()))
                    burst, since = 0, loop.time()
        except ChannelClosed:
            return

    async def _greet(self, container: Container, run: Run) -> None:
        """The first words with a guest: its clock, and where its process is."""
        assert run.channel is not None
        try:
            hello = await run.channel.ready()
            self.main(container, run, hello.main)
            if container.record.state.restored:
                await catch_up(self._house, container, run)
                return
            now = self._house.clock.now()
            request = TimeSetRequest(time=now)
            await run.channel.call("TimeSet", request, TimeSetReply, timeout=self._house.timeouts.call)
        except ChannelClosed:
            return
        except ChannelError as error:
            log.warning("container %s: its clock was not set: %s", container.id[:12], error)

    async def _read_opening(self, container: Container, run: Run) -> None:
        """The journal often says STARTED before the channel is up."""
        journal = self._house.rooms.hypervisor.journal(container.id)
        mark = container.record.state.mark
        with self._house.watcher.watch(journal.parent) as watch:
            while not run.begun and not run.reported.is_set() and not watch.gone:
                state = await asyncio.to_thread(opening, journal, mark.inode, mark.size)
                if state is not None:
                    self.main(container, run, state)
                    return
                await watch.changed()

    async def _limit_time(self, container: Container, run: Run) -> None:
        timeouts = self._house.timeouts
        try:
            async with asyncio.timeout(timeouts.boot):
                await run.spoke.wait()
        except TimeoutError:
            words = f"the guest did not become ready within {timeouts.boot:g} s"
            await self.cut(container, run, words)
            return
        await run.reported.wait()
        try:
            async with asyncio.timeout(timeouts.power_off):
                await run.off.wait()
        except TimeoutError:
            await self.cut(container, run, "the guest did not power off")

    async def cut(self, container: Container, run: Run, why: str) -> None:
        """Cut the power of a run, and say why when it is settled."""
        if not run.off.is_set():
            run.cut = run.cut or why
            run.console = await self._console(container)
            if run.off.is_set() or container.run is not run:
                return  # it went by itself meanwhile: the VM may have its next run already
            log.warning("container %s: cutting its power: %s", container.id[:12], why)
            await self._house.rooms.hypervisor.power_off(container.id)

    async def _console(self, container: Container) -> str:
        try:
            tail = await self._house.rooms.hypervisor.console(container.id, limit=_CONSOLE_TAIL)
        except HypervisorError as error:
            return f"(no console: {error})"
        text = tail[-_CONSOLE_TAIL:].decode(errors="replace")
        return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()

    async def _relay(self, container: Container, run: Run) -> None:
        if container.spec.engine_sockets:
            assert run.channel is not None
            await relay(run.channel, self._house.config.paths.docker_socket, container.id[:12])

    async def _rotate(self, container: Container, run: Run) -> None:
        limit = rotation_limit(container.spec.log)
        if limit is None:
            return

        async def rotate(keep: int) -> None:
            async with container.lock:
                await self._unmark(container)
                await self._house.rotate_journal(container, keep)

        journal = self._house.rooms.hypervisor.journal(container.id)
        await keep_rotated(self._house.watcher, journal, limit, rotate)

    async def _unmark(self, container: Container) -> None:
        """Before the first rotation: the new live file belongs to this run from its first byte."""
        record = container.record
        if not record.state.rotated:
            await self._house.save(container, record.with_state(rotated=True, mark=JournalMark()))

    # -- what the guest says
    def _event(self, container: Container, run: Run, event: Event) -> None:
        kind = event.WhichOneof("event")
        news = event.time >= run.adopted_at  # the guest repeats what it told an earlier port layer
        if kind == "main":
            self.main(container, run, event.main)
        elif kind == "exec" and not event.exec.running:
            self._exec_ended(container, event.exec, news=news)
        elif kind == "oom" and news:
            self._house.announce(container, ContainerEvent.OOM)
        elif kind == "health":
            self._health(container, event.health, news=news)
        elif kind == "network" and event.network.error:
            words = event.network.error[:_CONSOLE_TAIL]
            log.warning("container %s: its network failed: %r", container.id[:12], words)

    def main(self, container: Container, run: Run, state: MainState) -> None:
        """The guest says how its process is; saying it twice changes nothing."""
        if state.state in (MainState.RUNNING, MainState.EXITED):
            self._settler.begun(container, run, state)
        if state.state in (MainState.EXITED, MainState.FAILED) and run.report is None:
            run.report = state
            run.spoke.set()
            run.reported.set()

    def _exec_ended(self, container: Container, state: ExecState, *, news: bool) -> None:
        if len(state.exec_id) > _LONGEST_ID or state.exec_id in container.execs:
            return  # told before, when the channel was new
        state.error = state.error[:_CONSOLE_TAIL]
        container.remember_exec(state)
        if news:
            self._house.announce(
                container, ContainerEvent.EXEC_DIED, exec_id=state.exec_id, exit_code=state.exit_code
            )

    def _health(self, container: Container, event: HealthEvent, *, news: bool) -> None:
        if container.health.take(event) and news:
            self._house.announce(container, ContainerEvent.HEALTH)


def _complain(task: asyncio.Task[None]) -> None:
    """A run whose watch fails would stay as it is until the next start-up: say so loudly."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s is not watched any more", task.get_name(), exc_info=error)
