"""What the VM itself remembers about its container.

Three documents in ``VmConfig.extra``: ``container`` (the serialized
``ContainerSpec``), ``intent`` (one word) and ``state`` (JSON: what a restart
must know and the journal does not say). A :class:`Record` is all three, frozen;
every change makes a new one and is saved by one ``Hypervisor.configure``.

The intent says how to read the rest after a crash: ``running`` with a VM that
is off means that the exit has not been recorded yet.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from google.protobuf.message import DecodeError

from portlayer.portlayer_pb2 import ContainerSpec

__all__ = ["BadRecord", "Intent", "JournalMark", "Record"]

_CONTAINER, _INTENT, _STATE = "container", "intent", "state"


class BadRecord(Exception):
    """The documents of a VM cannot be read; the message names the document."""


class Intent(enum.Enum):
    CREATED = "created"  # never started
    RUNNING = "running"  # started; the exit is not recorded yet
    STOPPED = "stopped"  # the last exit is recorded
    REMOVING = "removing"  # removal must be finished


@dataclass(frozen=True, kw_only=True)
class JournalMark:
    """Where the journal ended before a start: what lies behind it belongs to this run."""

    inode: int = 0  # 0: there was no journal, or all of it belongs to this run
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """The ``state`` document."""

    revision: int = 1  # Handle.change_version: counts commits, not our own bookkeeping
    restart_count: int = 0
    manual_stop: bool = False  # stopped or killed by a user since the last manual start
    requested_at: int = 0  # when the last start began
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restored: bool = False  # this run goes on from a checkpoint: its journal has no STARTED
    rotated: bool = False  # the journal was rotated during this run: STARTED may be gone
    mark: JournalMark = field(default_factory=JournalMark)


@dataclass(frozen=True, kw_only=True)
class Record:
    spec: ContainerSpec  # never changed in place
    intent: Intent = Intent.CREATED
    state: Lasting = field(default_factory=Lasting)

    def to_extra(self) -> dict[str, bytes]:
        return {
            _CONTAINER: self.spec.SerializeToString(deterministic=True),
            _INTENT: self.intent.value.encode(),
            _STATE: json.dumps(asdict(self.state), sort_keys=True).encode(),
        }

    def with_state(self, **changes: Any) -> Record:
        return replace(self, state=replace(self.state, **changes))

    @classmethod
    def from_extra(cls, extra: Mapping[str, bytes]) -> Record:
        try:
            spec = ContainerSpec.FromString(extra[_CONTAINER])
        except KeyError as error:
            raise BadRecord(f"no {_CONTAINER!r} document") from error
        except DecodeError as error:
            raise BadRecord(f"{_CONTAINER!r}: {error}") from error
        try:
            intent = Intent(extra[_INTENT].decode())
        except (KeyError, ValueError) as error:
            raise BadRecord(f"{_INTENT!r}: {error}") from error
        return cls(spec=spec, intent=intent, state=_state(extra.get(_STATE, b"")))


def _state(raw: bytes) -> Lasting:
    try:
        values = json.loads(raw)
    except ValueError as error:
        raise BadRecord(f"{_STATE!r}: {error}") from error
    if not isinstance(values, dict):
        raise BadRecord(f"{_STATE!r}: expected an object")
    mark = values.pop("mark", {})
    try:
        read = Lasting(**values, mark=JournalMark(**mark))
    except TypeError as error:
        raise BadRecord(f"{_STATE!r}: {error}") from error
    for entry in fields(Lasting):
        if entry.name != "mark" and type(getattr(read, entry.name)) is not type(entry.default):
            raise BadRecord(f"{_STATE!r}: {entry.name} is not a {type(entry.default).__name__}")
    return read
