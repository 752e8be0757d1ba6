"""The life of a container as a table.

::

    CREATED ──► STARTING ──► RUNNING ◄──► PAUSED
                   │          │  └─► STOPPING ─┐
                   ▼          ▼                ▼
    CREATED/EXITED (failed)  RESTARTING ──► EXITED ──► STARTING …
    CREATED, EXITED, RESTARTING, DEAD ──► REMOVING ──► gone, or DEAD when the removal failed

Every change goes through :func:`check_move`; every call states which states
allow it through :func:`require`, whose error holds the current state and the
wanted ones.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import ContainerState, Reason

__all__ = ["LIVE", "STOPPED", "IllegalMove", "Status", "check_move", "require"]


class Status(enum.Enum):
    CREATED = ContainerState.CREATED
    STARTING = ContainerState.STARTING
    RUNNING = ContainerState.RUNNING
    PAUSED = ContainerState.PAUSED
    STOPPING = ContainerState.STOPPING
    EXITED = ContainerState.EXITED
    RESTARTING = ContainerState.RESTARTING
    REMOVING = ContainerState.REMOVING
    DEAD = ContainerState.DEAD

    @property
    def word(self) -> str:
        return self.name.lower()


STOPPED = frozenset({Status.CREATED, Status.EXITED, Status.DEAD})
"""No VM runs and none is about to."""

LIVE = frozenset({Status.STARTING, Status.RUNNING, Status.PAUSED, Status.STOPPING})
"""A VM runs."""

_MOVES: Mapping[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.STARTING, Status.REMOVING}),
    Status.STARTING: frozenset({Status.RUNNING, Status.CREATED, Status.EXITED, Status.RESTARTING}),
    Status.RUNNING: frozenset({Status.PAUSED, Status.STOPPING, Status.EXITED, Status.RESTARTING}),
    Status.PAUSED: frozenset({Status.RUNNING, Status.STOPPING, Status.EXITED, Status.RESTARTING}),
    Status.STOPPING: frozenset({Status.EXITED}),
    Status.RESTARTING: frozenset({Status.STARTING, Status.EXITED, Status.REMOVING}),
    Status.EXITED: frozenset({Status.STARTING, Status.RESTARTING, Status.REMOVING}),
    Status.REMOVING: frozenset({Status.DEAD}),
    Status.DEAD: frozenset({Status.REMOVING}),
}


class IllegalMove(Exception):
    """A bug of ours: the table has no such arrow. Holds both states."""

    def __init__(self, current: Status, wanted: Status) -> None:
        super().__init__(f"no way from {current.word} to {wanted.word}")
        self.current = current
        self.wanted = wanted


def check_move(current: Status, wanted: Status) -> None:
    if wanted not in _MOVES[current]:
        raise IllegalMove(current, wanted)


def require(name: str, call: str, current: Status, allowed: Collection[Status]) -> None:
    """Raise unless ``current`` allows ``call``.

    Raises:
        PortLayerError: its reason says in what way the state is wrong.
    """
    if current in allowed:
        return
    wanted = " or ".join(sorted(status.word for status in allowed))
    message = f"cannot {call} container {name}: it is {current.word}; it must be {wanted}"
    raise PortLayerError(_reason(current, allowed), message)


def _reason(current: Status, allowed: Collection[Status]) -> Reason.ValueType:
    if current in (Status.REMOVING, Status.DEAD):
        return Reason.REMOVAL_IN_PROGRESS
    if current is Status.PAUSED:
        return Reason.PAUSED
    if current in LIVE or current is Status.RESTARTING:
        return Reason.NOT_RUNNING if Status.RUNNING in allowed else Reason.ALREADY_RUNNING
    return Reason.NOT_RUNNING
