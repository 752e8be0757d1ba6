"""Execs as documents in the key-value store, so that a restarted engine knows them.

Invariant: a document is written before its ID is given to anybody, and deleted
only when its exec ended a while ago or its container is gone.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from engine.http import NotFound
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["ExecDocument", "ExecStore"]

logger = logging.getLogger(__name__)

PREFIX = "exec/"
KEEP_NS = 300 * 1_000_000_000
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ExecDocument:
    id: str
    container: str
    created_at: int
    argv: list[str]
    env: list[str] = field(default_factory=list)
    user: str = ""
    cwd: str = ""
    tty: bool = False
    privileged: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str = ""
    rows: int = 0
    columns: int = 0
    started: bool = False
    failed: int | None = None  # exit code of an exec that could not be started

    def begun(self) -> ExecDocument:
        return replace(self, started=True)


class ExecStore:
    def __init__(self, port: PortLayer) -> None:
        self._port = port

    async def save(self, document: ExecDocument) -> None:
        value = json.dumps(asdict(document), separators=(",", ":")).encode()
        await self._port.call(
            self._port.keys.Put, pb.KeyValue(key=PREFIX + document.id, value=value), timeout=30
        )

    async def load(self, exec_id: str) -> ExecDocument:
        if not _ID.fullmatch(exec_id):
            raise no_such_exec(exec_id)
        try:
            found = await self._port.call(
                self._port.keys.Get, pb.KeyRef(key=PREFIX + exec_id), timeout=30, idempotent=True
            )
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise
            raise no_such_exec(exec_id) from error
        document = _decode(found.value)
        if document is None:
            raise no_such_exec(exec_id)
        return document

    async def state(self, document: ExecDocument) -> tether_pb2.ExecState | None:
        """The guest's word about it; ``None`` when the guest no longer knows (or never did)."""
        try:
            return await self._port.call(
                self._port.interaction.ExecInspect,
                pb.ExecRef(id=document.container, exec_id=document.id),
                timeout=30,
            )
        except PortLayerError as error:
            if error.reason not in (pb.NO_SUCH_EXEC, pb.NO_SUCH_CONTAINER, pb.NOT_RUNNING, pb.GUEST_LOST):
                raise
            return None

    async def sweep(self, running: Mapping[str, object]) -> None:
        """Delete what nobody can ask about any more. ``running``: IDs of containers that run."""
        listed = await self._port.call(self._port.keys.List, pb.KeyPrefix(prefix=PREFIX), idempotent=True)
        now = time.time_ns()
        for item in listed.items:
            document = _decode(item.value)
            if document is None or await self._is_over(document, running, now):
                await self._port.call(self._port.keys.Delete, pb.KeyRef(key=item.key))

    async def _is_over(self, document: ExecDocument, running: Mapping[str, object], now: int) -> bool:
        if now - document.created_at < KEEP_NS:
            return False
        if document.container not in running or document.failed is not None:
            return True
        if not document.started:
            return False
        state = await self.state(document)
        return state is None or (not state.running and now - state.finished_at > KEEP_NS)


def no_such_exec(exec_id: str) -> NotFound:
    return NotFound(f"No such exec instance: {exec_id}")


def _decode(raw: bytes) -> ExecDocument | None:
    try:
        value: Any = json.loads(raw)
        return ExecDocument(**value)
    except (ValueError, TypeError) as error:
        logger.warning("an exec document is unreadable: %s", error)
        return None
