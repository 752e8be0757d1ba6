"""Docker's words for a state."""

from __future__ import annotations

from typing import Any

import pytest

from engine.containers.status import human_duration, is_running, is_starting, state_name, status_line
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

S = 1_000_000_000
NOW = 1_000_000 * S
State = pb.ContainerState
Health = tether_pb2.HealthEvent


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60, "59 minutes"),
        (60 * 60, "About an hour"),
        (89 * 60, "About an hour"),
        (90 * 60, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert human_duration(int(seconds * S)) == words


@pytest.mark.parametrize(
    ("fields", "name", "line"),
    [
        ({"status": State.CREATED}, "created", "Created"),
        ({"status": State.STARTING}, "created", "Created"),
        (
            {"status": State.STARTING, "finished_at": NOW - 5 * S, "exit_code": 2},
            "exited",
            "Exited (2) 5 seconds ago",
        ),
        ({"status": State.RUNNING}, "running", "Up 10 minutes"),
        ({"status": State.RUNNING, "health": Health.STARTING}, "running", "Up 10 minutes (health: starting)"),
        ({"status": State.RUNNING, "health": Health.UNHEALTHY}, "running", "Up 10 minutes (unhealthy)"),
        ({"status": State.STOPPING}, "running", "Up 10 minutes"),
        ({"status": State.PAUSED}, "paused", "Up 10 minutes (Paused)"),
        (
            {"status": State.RESTARTING, "finished_at": NOW - 3 * S, "exit_code": 1},
            "restarting",
            "Restarting (1) 3 seconds ago",
        ),
        (
            {"status": State.EXITED, "finished_at": NOW - 3 * S, "exit_code": 137},
            "exited",
            "Exited (137) 3 seconds ago",
        ),
        ({"status": State.REMOVING}, "removing", "Removal In Progress"),
        ({"status": State.DEAD}, "dead", "Dead"),
        ({"status": State.UNKNOWN}, "dead", "Dead"),
    ],
)
def test_states(fields: dict[str, Any], name: str, line: str) -> None:
    state = pb.ContainerState(started_at=NOW - 600 * S, **fields)
    assert (state_name(state), status_line(state, NOW)) == (name, line)


def test_what_counts_as_running() -> None:
    running = {status for status in State.Status.values() if is_running(pb.ContainerState(status=status))}
    assert running == {State.RUNNING, State.PAUSED, State.STOPPING, State.RESTARTING}
    starting = [status for status in State.Status.values() if is_starting(pb.ContainerState(status=status))]
    assert starting == [State.STARTING]
