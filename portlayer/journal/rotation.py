"""Keeps one running container's journal within its size: rotate when it has grown too far.

Driven by the kernel's notice that the file grew. A guest that floods makes many
notices: after each look the next one waits a moment, so that watching costs
next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from portlayer.journal.verdict import journal_end
from portlayer.journal.watcher import JournalWatcher
from portlayer.portlayer_pb2 import LogConfig

__all__ = ["UNREAD_LIMIT", "RotationLimit", "keep_rotated", "rotation_limit"]

UNREAD_LIMIT = 16 << 20  # a journal that nobody may read as logs (driver "none")
_BREATH = 0.05


@dataclass(frozen=True, kw_only=True)
class RotationLimit:
    max_bytes: int
    keep: int  # rotated files beside the live one


def rotation_limit(log: LogConfig) -> RotationLimit | None:
    """None: the journal may grow without end, as Docker's default does."""
    if log.driver == "none":
        return RotationLimit(max_bytes=UNREAD_LIMIT, keep=0)
    if not log.max_size:
        return None
    return RotationLimit(max_bytes=log.max_size, keep=max(log.max_files, 1) - 1)


async def keep_rotated(
    watcher: JournalWatcher, journal: Path, limit: RotationLimit, rotate: Callable[[int], Awaitable[None]]
) -> None:
    """Call ``rotate(keep)`` whenever the file is too large; runs until cancelled."""
    with watcher.watch(journal.parent) as watch:
        while not watch.gone:
            _, size = journal_end(journal)
            if size > limit.max_bytes:
                await rotate(limit.keep)
            await asyncio.sleep(_BREATH)
            await watch.changed()
