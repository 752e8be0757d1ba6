"""Who hears of the VMs' power events, and steps that no caller can break off: for both back ends."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from portlayer.hypervisor.base import VmEvent

__all__ = ["Steps", "Watchers"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Watchers:
    """All subscribers. One hears what happens from the moment it is made, and goes when it is dropped."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[_Watcher] = weakref.WeakSet()

    def watch(self) -> AsyncIterator[VmEvent]:
        watcher = _Watcher()
        self._all.add(watcher)
        return watcher

    def emit(self, event: VmEvent) -> None:
        for watcher in list(self._all):
            watcher.push(event)

    def end(self) -> None:
        for watcher in list(self._all):
            watcher.end()


class Steps:
    """Calls that run to their end even when their caller is cancelled.

    A gRPC client that hangs up in the middle leaves the VM in the old state or the new.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def unbroken(self, step: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self.begin(step))

    def begin(self, step: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A step that nobody waits for."""
        task = asyncio.ensure_future(step)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def ended(self) -> None:
        """Wait until no step runs."""
        if self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("step failed: %s", task.exception())


class _Watcher(AsyncIterator[VmEvent]):
    def __init__(self) -> None:
        self._queue: asyncio.Queue[VmEvent | None] = asyncio.Queue()

    def push(self, event: VmEvent) -> None:
        self._queue.put_nowait(event)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __anext__(self) -> VmEvent:
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)  # for whoever asks again
            raise StopAsyncIteration
        return event
