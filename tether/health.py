"""Run the health check: one probe at a time, on a timer, its output kept, its result pushed and journaled."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from tether.call import RpcError
from tether.container import Container
from tether.events import EventLog
from tether.execs import enter
from tether.healthstate import MAX_OUTPUT, HealthState, timed_out_text
from tether.journal import Kind
from tether.loop import Loop, Timer
from tether.recorder import Recorder
from tether.spawn import Spawned, read_report
from tether.tether_pb2 import HealthCheck, HealthEvent

__all__ = ["HealthRunner"]

_NANO = 1_000_000_000
_SIGKILL = 9
_TIMED_OUT = -1  # Docker's exit code of a probe that took too long


class HealthRunner:
    """Probes from `start` to `stop`; a new check begins anew."""

    def __init__(
        self,
        loop: Loop,
        container: Container,
        recorder: Recorder,
        events: EventLog,
        *,
        log: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._container = container
        self._recorder = recorder
        self._events = events
        self._log = log
        self._state: HealthState | None = None
        self._test: list[str] = []
        self._timer: Timer | None = None
        self._probe: _Probe | None = None

    def start(self, check: HealthCheck) -> None:
        """Begin with ``check``; an empty test means none."""
        self.stop()
        if not check.test:
            return
        self._test = list(check.test)
        self._state = HealthState(check, started_at=time.monotonic_ns())
        self._tell(HealthEvent(status=HealthEvent.STARTING))
        self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.abandon()
        self._state = self._timer = self._probe = None

    def _schedule(self) -> None:
        if self._state is not None:
            wait = self._state.next_wait(time.monotonic_ns())
            self._timer = self._loop.after(wait / _NANO, self._run)

    def _run(self) -> None:
        main = self._container.process
        if self._state is None or main is None or not self._container.running:
            return
        started = time.time_ns()
        try:
            plan = main._replace(argv=self._test, tty=False, make_cwd=False)
            spawned = enter(self._container, plan, stdin=False)
        except (RpcError, OSError) as error:
            self._log(f"health check did not start: {error}")
            self._finished(started, 1, str(error).encode())
            return
        self._probe = _Probe(
            self._loop, spawned, self._state.timeout, lambda c, o: self._finished(started, c, o)
        )

    def _finished(self, started: int, code: int, output: bytes) -> None:
        self._probe = None
        if self._state is None:
            return
        now, date = time.monotonic_ns(), time.time_ns()
        took = date - started
        event = self._state.probed(started_at=now - took, finished_at=now, exit_code=code, output=output)
        event.started_at, event.finished_at = started, date
        self._tell(event)
        self._schedule()

    def _tell(self, event: HealthEvent) -> None:
        self._recorder.record(Kind.HEALTH, event.SerializeToString())
        self._events.publish(health=event)


class _Probe:
    """One probe process: over when it has ended and its output has, or when its time is up."""

    def __init__(
        self, loop: Loop, spawned: Spawned, timeout: int, done: Callable[[int, bytes], None]
    ) -> None:
        self._loop = loop
        self._spawned = spawned
        self._timeout = timeout
        self._done: Callable[[int, bytes], None] | None = done
        self._output = bytearray()
        self._open = [spawned.stdout, spawned.stderr]
        self._code: int | None = None
        for fd in self._open:
            os.set_blocking(fd, False)
            loop.add(fd, select.EPOLLIN, lambda _, fd=fd: self._read(fd))  # type: ignore[misc]
        loop.on_child(spawned.pid, self._ended)
        self._timer = loop.after(timeout / _NANO, self._late)

    def abandon(self) -> None:
        """Kill it and forget what it says."""
        self._done = None
        self._kill()
        self._close()

    def _read(self, fd: int) -> None:
        try:
            piece = os.read(fd, 4096)
        except BlockingIOError:
            return
        # What is above the cap is read and forgotten, so that the probe never waits for us.
        self._output += piece[: MAX_OUTPUT - len(self._output)]
        if not piece:
            self._loop.remove(fd)
            os.close(fd)
            self._open.remove(fd)
            self._finish_if_over()

    def _ended(self, status: int) -> None:
        failure = read_report(self._spawned.report)
        if failure is not None:
            self._code = failure.code
            self._output = bytearray(str(failure).encode()[:MAX_OUTPUT])
        else:
            code = os.waitstatus_to_exitcode(status)
            self._code = code if code >= 0 else 128 - code
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._code is not None and not self._open:
            self._finish(self._code, bytes(self._output))

    def _late(self) -> None:
        """The time is up, or a grandchild holds the output open after the probe's end."""
        if self._code is not None:
            self._finish(self._code, bytes(self._output))
            return
        self._kill()
        self._finish(_TIMED_OUT, timed_out_text(self._timeout).encode())

    def _kill(self) -> None:
        if self._code is None:
            # It leads a session of its own, so what it started goes with it; it is unreaped, so it is it.
            try:
                os.killpg(self._spawned.pid, _SIGKILL)
            except ProcessLookupError:
                os.kill(self._spawned.pid, _SIGKILL)

    def _finish(self, code: int, output: bytes) -> None:
        done, self._done = self._done, None
        self._close()
        if done is not None:
            done(code, output)

    def _close(self) -> None:
        self._timer.cancel()
        self._loop.forget_child(self._spawned.pid)
        for fd in self._open:
            self._loop.remove(fd)
            os.close(fd)
        self._open = []
        if self._spawned.report >= 0:
            os.close(self._spawned.report)
            self._spawned = self._spawned._replace(report=-1)
