"""How Docker words a container's state. No I/O."""

from __future__ import annotations

from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["health_name", "human_duration", "is_running", "state_name", "status_line"]

State = pb.ContainerState
Health = tether_pb2.HealthEvent

_SECOND = 1_000_000_000
_NAMES = {
    State.UNKNOWN: "dead",
    State.CREATED: "created",
    State.STARTING: "created",
    State.RUNNING: "running",
    State.PAUSED: "paused",
    State.STOPPING: "running",
    State.EXITED: "exited",
    State.RESTARTING: "restarting",
    State.REMOVING: "removing",
    State.DEAD: "dead",
}
# looked up once: a thousand containers are listed at a time
_STARTING = State.STARTING
_NO_HEALTH, _HEALTH_STARTING = Health.NONE, Health.STARTING
_RUNNING = frozenset((State.RUNNING, State.PAUSED, State.STOPPING, State.RESTARTING))
_HEALTH = {
    Health.NONE: "none",
    Health.STARTING: "starting",
    Health.HEALTHY: "healthy",
    Health.UNHEALTHY: "unhealthy",
}


def state_name(state: pb.ContainerState) -> str:
    """One of Docker's seven. A container that is starting again shows as it was: exited."""
    status = state.status
    if status == _STARTING and state.finished_at:
        return "exited"
    return _NAMES.get(status, "dead")


def is_running(state: pb.ContainerState) -> bool:
    """Docker counts paused and restarting as running."""
    return state.status in _RUNNING


def health_name(state: pb.ContainerState) -> str:
    return _HEALTH.get(state.health, "none")


def status_line(state: pb.ContainerState, now_ns: int) -> str:
    """The STATUS column of ``docker ps``."""
    name = state_name(state)
    if name == "restarting":
        return f"Restarting ({state.exit_code}) {human_duration(now_ns - state.finished_at)} ago"
    if name in ("running", "paused"):
        up = f"Up {human_duration(now_ns - state.started_at)}"
        if name == "paused":
            return f"{up} (Paused)"
        health = state.health
        if health == _HEALTH_STARTING:
            return f"{up} (health: starting)"
        return f"{up} ({health_name(state)})" if health != _NO_HEALTH else up
    if name == "removing":
        return "Removal In Progress"
    if name == "dead":
        return "Dead"
    if name == "created":
        return "Created"
    return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_at)} ago"


def human_duration(ns: int) -> str:
    seconds = max(ns, 0) // _SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (seconds + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"
