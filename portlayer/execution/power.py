"""Start, stop, kill, restart, pause: Docker's meaning of the words, on a VM.

Decisions are taken under the container's lock; waiting for a guest happens
outside it, so that a stubborn guest can always be killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from portlayer.channel import ChannelError
from portlayer.errors import PortLayerError
from portlayer.execution.checkpoint import Checkpoints, catch_up
from portlayer.execution.container import Container, Run
from portlayer.execution.guest import guest_error
from portlayer.execution.house import House
from portlayer.execution.settle import Settler
from portlayer.execution.start import Starter
from portlayer.execution.states import Status, require
from portlayer.execution.supervisor import Supervisor
from portlayer.hypervisor.base import HypervisorError, InvalidState
from portlayer.portlayer_pb2 import ContainerEvent, Reason
from tether.tether_pb2 import Empty, ShutdownRequest, SignalRequest

__all__ = ["Power"]

log = logging.getLogger(__name__)
_SIGKILL = 9
_SIGTERM = 15
_HIGHEST_SIGNAL = 64
_RUNS = (Status.RUNNING, Status.PAUSED, Status.STOPPING)


class Power:
    def __init__(self, house: House) -> None:
        self._house = house
        self._settler = Settler(house)
        self.supervisor = Supervisor(house, self._settler)
        self.supervisor.restart = self._restart_later
        self._starter = Starter(house, self.supervisor)
        self.checkpoints = Checkpoints(house)

    # -- start
    async def start(self, container: Container, *, checkpoint: str | None = None) -> None:
        """Returns when the process runs (it may have ended already), from ``checkpoint`` on if there is one.

        Raises:
            PortLayerError: LAUNCH_FAILED with the guest's words, GUEST_LOST when it stayed silent.
        """
        async with container.lock:
            require(container.name, "start", container.status, (Status.CREATED, Status.EXITED))
            if checkpoint is not None:
                await self.checkpoints.require(container, checkpoint)
            run = await self._starter.launch(container, automatic=False, checkpoint=checkpoint)
        await asyncio.shield(run.started)

    async def start_automatically(
        self,
        container: Container,
        *,
        only: Collection[Status] = (Status.RESTARTING, Status.CREATED, Status.EXITED),
    ) -> None:
        """By restart policy; a failure ends the policy's attempts, as in Docker."""
        async with container.lock:
            if container.status not in only:
                return
            run = await self._starter.launch(container, automatic=True)
        await asyncio.shield(run.started)

    def _restart_later(self, container: Container, delay: float) -> None:
        container.restart_task = asyncio.create_task(self._restart(container, delay))
        self._house.keep_background(container.restart_task)

    async def _restart(self, container: Container, delay: float) -> None:
        await self._house.clock.sleep(delay)
        container.restart_task = None  # from here on it is a start like any other
        try:
            # Not EXITED: a stop that held the lock when the delay ended has had the last word.
            await self.start_automatically(container, only=(Status.RESTARTING,))
        except (PortLayerError, HypervisorError) as error:
            log.warning("container %s was not restarted: %s", container.id[:12], error)

    async def _cancel_restart(self, container: Container) -> bool:
        """Under the lock: stop a container that waits for its automatic restart."""
        if container.status is not Status.RESTARTING:
            return False
        if container.restart_task is not None:
            container.restart_task.cancel()
            container.restart_task = None
        await self._mark_manual(container)
        container.move(Status.EXITED)
        container.notify_exit()
        return True

    # -- stop
    async def stop(self, container: Container, *, signal: int, timeout: int) -> None:
        """Signal, wait ``timeout`` seconds (-1: for ever), then force; returns when it is over."""
        signal = _check_signal(signal or container.spec.stop_signal or _SIGTERM)
        await self._past_starting(container)
        async with container.lock:
            if await self._cancel_restart(container):
                self._house.announce(container, ContainerEvent.STOPPED)
                return
            require(container.name, "stop", container.status, _RUNS)
            run = self._current(container)
            run.restart_cancelled = True
            await self._mark_manual(container)
            await self._wake_for_signal(container)
            container.move(Status.STOPPING)
        limit = None if timeout < 0 else float(timeout)
        await self._ask_to_end(container, run, signal, limit)
        if not await self._over(run, limit):
            await self._force(container, run, f"it did not stop within {timeout} s")
        await run.ended.wait()
        self._house.announce(container, ContainerEvent.STOPPED)

    async def _ask_to_end(self, container: Container, run: Run, signal: int, limit: float | None) -> None:
        """A guest that does not take the signal is dealt with by the time limit, not by an error."""
        patience = self._house.timeouts.signal
        if limit is not None:
            patience = min(patience, max(limit, 1.0))
        try:
            await self._deliver(run, signal, patience)
        except ChannelError as error:
            log.warning("container %s: signal %d not delivered: %s", container.id[:12], signal, error)
        else:
            self._house.announce(container, ContainerEvent.KILLED, signal=signal)

    async def _deliver(self, run: Run, signal: int, timeout: float) -> None:
        assert run.channel is not None
        request = SignalRequest(signal=signal, scope=SignalRequest.ONE)
        await run.channel.call("Signal", request, Empty, timeout=timeout)

    async def _force(self, container: Container, run: Run, why: str) -> None:
        """Kill the workload and let the guest sync its disks; if even that fails, cut the power."""
        limit = self._house.timeouts.power_off
        run.killed = True
        log.info("container %s: forced to end: %s", container.id[:12], why)
        if run.channel is not None:
            try:
                request = ShutdownRequest(reason=why, force=True)
                await run.channel.call("Shutdown", request, Empty, timeout=min(limit, 5.0))
            except ChannelError as error:
                log.warning("container %s: its guest cannot be shut down: %s", container.id[:12], error)
        if not await self._over(run, limit):
            await self.supervisor.cut(container, run, why)

    async def _over(self, run: Run, limit: float | None) -> bool:
        try:
            async with asyncio.timeout(limit):
                await run.ended.wait()
        except TimeoutError:
            return False
        return True

    # -- kill
    async def kill(self, container: Container, *, signal: int) -> None:
        """Send a signal; SIGKILL (or 0) returns when the container has ended."""
        signal = _check_signal(signal or _SIGKILL)
        if signal == _SIGKILL and await self._kill_starting(container):
            return
        await self._past_starting(container)
        async with container.lock:
            if await self._cancel_restart(container):
                return
            require(container.name, "kill", container.status, _RUNS)
            run = self._current(container)
            stop_signal = container.spec.stop_signal
            if signal in (_SIGKILL, stop_signal) or not stop_signal:
                run.restart_cancelled = True
            await self._mark_manual(container)
            await self._wake_for_signal(container)
        if signal == _SIGKILL:
            await self._kill(container, run)
            return
        try:
            await self._deliver(run, signal, self._house.timeouts.signal)
        except ChannelError as error:
            raise guest_error(container, "kill", error, not_found=Reason.NOT_RUNNING) from error
        self._house.announce(container, ContainerEvent.KILLED, signal=signal)

    async def _kill_starting(self, container: Container) -> bool:
        """A guest that may hang in its boot is not asked. False when it is not in its boot."""
        if container.status is not Status.STARTING:
            return False
        async with container.lock:  # the power is on, or the start has failed
            run = container.run
        if run is None or run.begun:
            return False
        run.killed = run.restart_cancelled = True
        self._house.announce(container, ContainerEvent.KILLED, signal=_SIGKILL)
        await self.supervisor.cut(container, run, "killed while it was starting")
        await run.ended.wait()
        return True

    async def _kill(self, container: Container, run: Run) -> None:
        run.killed = True
        patience = self._house.timeouts.signal
        await self._ask_to_end(container, run, _SIGKILL, patience)
        if not await self._over(run, patience):
            await self.supervisor.cut(container, run, "killed")
        await run.ended.wait()

    async def restart(self, container: Container, *, signal: int, timeout: int) -> None:
        if container.live or container.status is Status.RESTARTING:
            await self.stop(container, signal=signal, timeout=timeout)
        await self.start(container)

    # -- pause
    async def pause(self, container: Container) -> None:
        async with container.lock:
            require(container.name, "pause", container.status, (Status.RUNNING,))
            try:
                await self._house.rooms.hypervisor.suspend(container.id)
            except InvalidState as error:
                raise self._just_ended(container) from error
            container.move(Status.PAUSED)
        self._house.announce(container, ContainerEvent.PAUSED)

    async def unpause(self, container: Container) -> None:
        async with container.lock:
            if container.status is not Status.PAUSED:
                raise PortLayerError(
                    Reason.NOT_RUNNING,
                    f"cannot unpause container {container.name}: it is {container.status.word}, not paused",
                )
            run = self._current(container)
            await self._wake(container)
        self._house.announce(container, ContainerEvent.UNPAUSED)
        await catch_up(self._house, container, run)

    async def _wake_for_signal(self, container: Container) -> None:
        """Under the lock: as in Docker, a signal ends a pause."""
        if container.status is Status.PAUSED:
            await self._wake(container)
            self._house.announce(container, ContainerEvent.UNPAUSED)

    async def _wake(self, container: Container) -> None:
        """Under the lock: a paused VM runs again.

        Raises:
            PortLayerError: NOT_RUNNING: it has just died, and will be settled.
        """
        if container.status is not Status.PAUSED:
            return
        try:
            await self._house.rooms.hypervisor.resume(container.id)
        except InvalidState as error:
            raise self._just_ended(container) from error
        container.move(Status.RUNNING)

    # -- shared
    async def end(self, container: Container) -> None:
        """Bring a container to a stopped state by force, from whatever state (removal)."""
        async with container.lock:
            if await self._cancel_restart(container):
                return
        if container.live:
            await self.kill(container, signal=_SIGKILL)

    def _current(self, container: Container) -> Run:
        if container.run is None:
            raise self._just_ended(container)
        return container.run

    def _just_ended(self, container: Container) -> PortLayerError:
        return PortLayerError(Reason.NOT_RUNNING, f"container {container.name} has just ended")

    async def _past_starting(self, container: Container) -> None:
        """Wait until a start under way has succeeded or failed."""
        while container.status is Status.STARTING:
            if container.run is None:  # still being prepared, under the lock
                async with container.lock:
                    continue
            await asyncio.wait([container.run.started])

    async def _mark_manual(self, container: Container) -> None:
        if not container.record.state.manual_stop:
            await self._house.save(container, container.record.with_state(manual_stop=True))


def _check_signal(signal: int) -> int:
    if not 0 < signal <= _HIGHEST_SIGNAL:
        raise PortLayerError(Reason.UNSPECIFIED, f"invalid signal: {signal}")
    return signal
