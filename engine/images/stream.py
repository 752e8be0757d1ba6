"""Work that reports as it goes: the answer's status waits for the first word, then messages stream.

An error before the first message is an ordinary error answer; later ones are messages. When the
client goes, the work is cancelled and waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from engine import operation
from engine.http import ApiError, Response, streamed
from engine.images.progress import Progress

__all__ = ["reporting"]

logger = logging.getLogger(__name__)


async def reporting(work: Callable[[Progress], Awaitable[object]]) -> Response:
    """Run ``work`` and answer with what it says."""
    progress = Progress()

    async def run() -> None:
        try:
            await work(progress)
        except ApiError as error:
            if not progress.started:
                raise
            progress.error(error.message)
        except Exception:
            if not progress.started:
                raise
            logger.exception("failed after the answer began")
            progress.error(f"internal error in operation {operation.current()}")
        finally:
            progress.close()

    task = asyncio.create_task(run())
    try:
        await progress.wait()
    except asyncio.CancelledError:
        await _stop(task)
        raise
    if not progress.started:
        await task  # nothing was said: its error, if any, is the answer
    return streamed(_Lines(progress, task))


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # nobody is left to hear it


class _Lines(AsyncGenerator[bytes, None]):
    """Not a generator function: its `aclose` must end the work even when nothing was ever read."""

    def __init__(self, progress: Progress, task: asyncio.Task[None]) -> None:
        self._lines = progress.lines()
        self._task = task

    async def __anext__(self) -> bytes:
        return await anext(self._lines)

    async def asend(self, value: None) -> bytes:
        return await anext(self._lines)

    async def athrow(self, *details: Any) -> bytes:
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await _stop(self._task)
