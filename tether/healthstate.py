"""Docker's health check as a state machine: probe results in, status and next wait out. No clock, no process.

STARTING until the first success, or until ``retries`` failures in a row that
count. A failure inside the start period does not count, unless a probe has
succeeded before: the first success ends the start period.
"""

from __future__ import annotations

from tether.tether_pb2 import HealthCheck, HealthEvent

__all__ = ["MAX_OUTPUT", "HealthState", "timed_out_text"]

MAX_OUTPUT = 4096
_SECOND = 1_000_000_000
_DEFAULT_INTERVAL = 30 * _SECOND
_DEFAULT_TIMEOUT = 30 * _SECOND
_DEFAULT_START_INTERVAL = 5 * _SECOND
_DEFAULT_RETRIES = 3


class HealthState:
    """One container's health. Times are nanoseconds of any one clock."""

    def __init__(self, check: HealthCheck, *, started_at: int) -> None:
        self.timeout = check.timeout or _DEFAULT_TIMEOUT
        self._interval = check.interval or _DEFAULT_INTERVAL
        self._start_interval = check.start_interval or _DEFAULT_START_INTERVAL
        self._retries = check.retries or _DEFAULT_RETRIES
        self._start_end = started_at + check.start_period
        self.status: HealthEvent.Status.ValueType = HealthEvent.STARTING
        self.failing_streak = 0

    def next_wait(self, now: int) -> int:
        """How long to wait before the next probe starts."""
        if self.status == HealthEvent.STARTING and now < self._start_end:
            return self._start_interval
        return self._interval

    def probed(self, *, started_at: int, finished_at: int, exit_code: int, output: bytes) -> HealthEvent:
        """Take in one result; the event tells it and the status it leads to.

        ``started_at`` and ``finished_at`` are of the clock of ``now``; the
        caller replaces them by dates.
        """
        if exit_code == 0:
            self.failing_streak = 0
            self.status = HealthEvent.HEALTHY
        elif self.status != HealthEvent.STARTING or started_at >= self._start_end:
            self.failing_streak += 1
            if self.failing_streak >= self._retries:
                self.status = HealthEvent.UNHEALTHY
        return HealthEvent(
            status=self.status,
            failing_streak=self.failing_streak,
            started_at=started_at,
            finished_at=finished_at,
            exit_code=exit_code,
            output=output[:MAX_OUTPUT].decode(errors="replace")[:MAX_OUTPUT],
        )


def timed_out_text(timeout: int) -> str:
    """Docker's words for a probe that was killed for taking too long."""
    minutes, seconds = divmod(timeout / _SECOND, 60)
    return f"Health check exceeded timeout ({f'{minutes:g}m' if minutes else ''}{seconds:g}s)"
