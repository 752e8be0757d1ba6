"""Streams through a thread: hashing and decompression run beside the event loop, with back-pressure.

Guarantee of :func:`through_thread`: when its generator is closed, finished or not, the thread has
ended and the source is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

__all__ = ["through_thread"]

_WINDOW = 4 << 20  # bytes in flight on each side of the thread


class _Abandoned(Exception):
    """The other side has gone."""


class _Pipe:
    """A bounded queue with one end in the event loop and one in a thread; either way round."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._condition = threading.Condition()
        self._changed = asyncio.Event()
        self._items: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None

    def _notify(self) -> None:
        self._condition.notify_all()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self._changed.set)

    def end(self) -> None:
        with self._condition:
            self._ended = True
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Both ends raise it from now on; what is queued is dropped."""
        with self._condition:
            if self._error is None:
                self._error = error
            self._items.clear()
            self._notify()

    def _offer(self, data: bytes) -> bool:
        if self._error is not None:
            raise self._error
        if self._size >= _WINDOW:
            return False
        self._items.append(data)
        self._size += len(data)
        self._notify()
        return True

    def _take(self) -> bytes | None:
        """The next item, b"" at the end, None when there is nothing yet."""
        if self._error is not None:
            raise self._error
        if self._items:
            data = self._items.popleft()
            self._size -= len(data)
            self._notify()
            return data
        return b"" if self._ended else None

    # in the thread
    def put(self, data: bytes) -> None:
        with self._condition:
            while not self._offer(data):
                self._condition.wait()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._condition:
                while (data := self._take()) is None:
                    self._condition.wait()
            if not data:
                return
            yield data

    # in the event loop
    async def send(self, data: bytes) -> None:
        while True:
            with self._condition:
                self._changed.clear()
                if self._offer(data):
                    return
            await self._changed.wait()

    async def receive(self) -> bytes:
        while True:
            with self._condition:
                self._changed.clear()
                if (data := self._take()) is not None:
                    return data
            await self._changed.wait()


async def through_thread(
    transform: Callable[[Iterator[bytes]], Iterator[bytes]], source: AsyncIterator[bytes]
) -> AsyncGenerator[bytes, None]:
    """What ``transform`` makes of ``source``, in a thread of its own. Empty chunks are dropped."""
    loop = asyncio.get_running_loop()
    inlet, outlet = _Pipe(loop), _Pipe(loop)
    ended = loop.create_future()

    def work() -> None:
        try:
            for piece in transform(iter(inlet)):
                if piece:
                    outlet.put(piece)
            outlet.end()
        except BaseException as error:  # it is raised again where the pieces are read
            outlet.fail(error)
        finally:
            loop.call_soon_threadsafe(ended.set_result, None)

    async def feed() -> None:
        try:
            async for chunk in source:
                if chunk:
                    await inlet.send(chunk)
            inlet.end()
        except _Abandoned:
            return
        except BaseException as error:
            inlet.fail(error)
            if not isinstance(error, Exception):
                raise

    threading.Thread(target=work, name="layer", daemon=True).start()
    feeder = asyncio.create_task(feed())
    try:
        while piece := await outlet.receive():
            yield piece
    finally:
        inlet.fail(_Abandoned())
        outlet.fail(_Abandoned())
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ended)
        await asyncio.wait([feeder])
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
