"""The JSON messages that pulls and loads send, one per line, as Docker's clients show them.

A client that reads slowly costs nothing: of the running numbers of one layer only the newest wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["Kept", "Progress", "human_size"]

_INTERVAL = 0.1  # seconds between two numbers of one layer
_BAR = 50
_PENDING_LIMIT = 10_000
_ROOM = 500


class Progress:
    """Written by the work, read by the response. ``close`` ends the stream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: deque[dict[str, Any]] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False
        self.started = False  # something was said: from here on, errors are messages too
        self._shown: dict[str, tuple[str, float]] = {}

    async def wait(self) -> None:
        """Until there is something to read, or nothing will come."""
        while not self._pending and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    async def room(self) -> None:
        """Until the reader is not too far behind: for output that must not be dropped."""
        while len(self._pending) > _ROOM and not self._closed:
            self._taken.clear()
            await self._taken.wait()

    def message(self, status: str, name: str = "") -> None:
        self._push({"status": status} | ({"id": name} if name else {}))

    def state(self, name: str, status: str) -> None:
        """A layer's new state, without numbers."""
        self._push({"status": status, "progressDetail": {}, "id": name})

    def numbers(self, name: str, status: str, current: int, total: int) -> None:
        """A layer's running numbers; most calls are dropped, never the last of a state."""
        now = self._clock()
        last, when = self._shown.get(name, ("", 0.0))
        if last == status and now - when < _INTERVAL and (not total or current < total):
            return
        self._shown[name] = (status, now)
        detail = {"current": current} | ({"total": total} if total else {})
        message = {
            "status": status,
            "progressDetail": detail,
            "progress": _bar(current, total),
            "id": name,
        }
        for waiting in reversed(self._pending):
            if waiting.get("id") == name:
                if waiting.get("progress") and waiting["status"] == status:
                    waiting.update(message)
                    return
                break
        self._push(message)

    def text(self, text: str) -> None:
        self._push({"stream": text})

    def aux(self, value: dict[str, Any]) -> None:
        """For programs: what came of it."""
        self._push({"progressDetail": {}, "aux": value})

    def result(self, value: dict[str, Any]) -> None:
        """The same from the builder, whose messages have no progress."""
        self._push({"aux": value})

    def take(self, other: Progress) -> None:
        """Say what was said to ``other``."""
        messages, other._pending = other._pending, deque()
        for message in messages:
            self._push(message)

    def error(self, text: str, *, code: int = 0) -> None:
        self._push({"errorDetail": {**({"code": code} if code else {}), "message": text}, "error": text})

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    def _push(self, message: dict[str, Any]) -> None:
        self.started = True
        if len(self._pending) < _PENDING_LIMIT or "error" in message:
            self._pending.append(message)
        self._changed.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """All messages, as many as there are at a time, until `close`."""
        while True:
            await self.wait()
            if not self._pending:
                return
            messages, self._pending = self._pending, deque()
            self._taken.set()
            yield b"".join(json.dumps(message, ensure_ascii=False).encode() + b"\r\n" for message in messages)


class Kept(Progress):
    """What is read only at the end, if at all (`docker build --quiet`): nobody waits for a reader."""

    async def room(self) -> None:
        return


def _bar(current: int, total: int) -> str:
    """Old clients print this as it is; new ones draw their own."""
    if not total or current > total:
        return f"{human_size(current):>8}"
    filled = current * _BAR // total
    space = " " * (_BAR - filled)
    return f"[{'=' * filled}>{space}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """Docker's four significant digits with a decimal unit: "1.234MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            return f"{size:.4g}{unit}"
        size /= 1000
    return f"{size:.4g}EB"
