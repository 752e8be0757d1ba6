"""One session per disk at a time: the others queue instead of meeting QEMU's image locks."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

__all__ = ["DiskLocks"]


class DiskLocks:
    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[Path, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def hold(self, disks: Iterable[Path]) -> AsyncIterator[None]:
        """Hold all of ``disks``, taken in one order by everybody: no two callers wait for each other."""
        async with contextlib.AsyncExitStack() as stack:
            for disk in sorted(set(disks)):
                await stack.enter_async_context(self._locks.setdefault(disk, asyncio.Lock()))
            yield
