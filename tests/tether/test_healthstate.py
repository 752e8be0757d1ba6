"""Docker's health rules, without a clock and without a process."""

from __future__ import annotations

import pytest

from tether.healthstate import MAX_OUTPUT, HealthState, timed_out_text
from tether.tether_pb2 import HealthCheck, HealthEvent

SECOND = 10**9
STARTING, HEALTHY, UNHEALTHY = HealthEvent.STARTING, HealthEvent.HEALTHY, HealthEvent.UNHEALTHY


def state(**fields: int) -> HealthState:
    return HealthState(HealthCheck(test=["x"], **fields), started_at=0)


def probe(health: HealthState, code: int, *, at: int = 0) -> tuple[int, int]:
    event = health.probed(started_at=at, finished_at=at + 1, exit_code=code, output=b"")
    return event.status, event.failing_streak


def test_defaults_are_dockers() -> None:
    health = state()
    assert health.timeout == 30 * SECOND
    assert health.next_wait(0) == 30 * SECOND
    assert [probe(health, 1) for _ in range(3)] == [(STARTING, 1), (STARTING, 2), (UNHEALTHY, 3)]


def test_one_success_makes_it_healthy_and_forgets_failures() -> None:
    health = state(retries=2)
    results = [probe(health, code) for code in (1, 0, 1, 1, 1, 0)]
    assert results == [
        (STARTING, 1),
        (HEALTHY, 0),
        (HEALTHY, 1),
        (UNHEALTHY, 2),
        (UNHEALTHY, 3),
        (HEALTHY, 0),
    ]


def test_failures_of_the_start_period_do_not_count() -> None:
    health = state(retries=1, start_period=10 * SECOND)
    assert probe(health, 1, at=5 * SECOND) == (STARTING, 0)
    assert probe(health, 1, at=10 * SECOND) == (UNHEALTHY, 1)


def test_the_first_success_ends_the_start_period() -> None:
    health = state(retries=1, start_period=10 * SECOND)
    assert probe(health, 0, at=SECOND) == (HEALTHY, 0)
    assert probe(health, 1, at=2 * SECOND) == (UNHEALTHY, 1)


def test_the_start_interval_is_for_the_start_period_only() -> None:
    health = state(interval=60 * SECOND, start_interval=2 * SECOND, start_period=10 * SECOND)
    assert health.next_wait(9 * SECOND) == 2 * SECOND
    assert health.next_wait(10 * SECOND) == 60 * SECOND
    probe(health, 0)
    assert health.next_wait(SECOND) == 60 * SECOND
    assert state(start_period=1).next_wait(0) == 5 * SECOND


def test_output_is_cut_and_may_be_any_bytes() -> None:
    event = state().probed(started_at=1, finished_at=2, exit_code=3, output=b"\xff" * (MAX_OUTPUT + 1))
    assert len(event.output.encode()) <= 3 * MAX_OUTPUT
    assert len(event.output) == MAX_OUTPUT
    assert (event.started_at, event.finished_at, event.exit_code) == (1, 2, 3)


@pytest.mark.parametrize(
    ("timeout", "text"), [(SECOND, "1s"), (1_500_000_000, "1.5s"), (90 * SECOND, "1m30s")]
)
def test_the_words_for_a_late_probe_are_dockers(timeout: int, text: str) -> None:
    assert timed_out_text(timeout) == f"Health check exceeded timeout ({text})"
