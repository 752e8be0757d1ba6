"""The parent's end of the child that opens disks, and how many of them may run.

A :class:`Workshop` belongs to one store and one directory; its sessions queue
for a slot, so that any number of callers share a few loop devices. A session
that is left by an exception is abandoned: nothing it wrote counts. One that is
left in order has everything on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import portlayer.offline
from portlayer.offline.frames import (
    CANCEL,
    DATA,
    END,
    ERROR,
    HEADER,
    MAX_BODY,
    REPLY,
    REQUEST,
    encode,
    encode_document,
)
from portlayer.storage.leftovers import kill_leftovers

__all__ = ["Worker", "WorkerError", "Workshop", "uninterrupted"]

T = TypeVar("T")
_MAIN = Path(portlayer.offline.__file__).with_name("__main__.py")
_PATIENCE = 60.0  # for an abandoned child to take down in order
_LAST_WORDS = 4000


class WorkerError(Exception):
    """The child refused or failed. ``kind``: archive, conflict, os (with errno), cancelled, fault."""

    def __init__(self, kind: str, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = number


class Worker:
    """One child. One request at a time; after a cancelled one, nothing but :meth:`end`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._to = process.stdin
        self._from = process.stdout
        self._words = b""
        self._listening = asyncio.create_task(self._listen(process.stderr))
        self._header: tuple[int, int] | None = None  # of a frame whose body is still to come
        self._busy = False  # a request has not been answered

    @property
    def pid(self) -> int:
        return self._process.pid

    async def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        await self._request(verb, arguments)
        return await self._reply()

    async def upload(self, verb: str, chunks: AsyncIterator[bytes], **arguments: Any) -> dict[str, Any]:
        """Send chunks as they come, no faster than the child takes them.

        When ``chunks`` raises, or our task is cancelled, the child has dropped
        the rest before the exception gets on. When the child fails, no further
        chunk is asked for.
        """
        await self._request(verb, arguments)
        reply = asyncio.create_task(self._reply())
        try:
            async for chunk in chunks:
                if reply.done():
                    break
                await self._send_data(chunk)
            await self._send(encode(END))
            return await reply
        except WorkerError:
            raise
        except BaseException:
            if not reply.done():
                with contextlib.suppress(WorkerError):
                    await self._send(encode(CANCEL))
                    await reply
            raise
        finally:
            reply.cancel()
            with contextlib.suppress(WorkerError, asyncio.CancelledError):
                await reply

    async def download(self, verb: str, **arguments: Any) -> AsyncGenerator[bytes, None]:
        """The chunks the child sends. Close the generator (``aclosing``) before the next request."""
        await self._request(verb, arguments)
        try:
            while True:
                kind, body = await self._receive()
                if kind != DATA:
                    self._finish(kind, body)
                    return
                yield body
        finally:
            if self._busy:
                with contextlib.suppress(WorkerError):
                    await self._send(encode(CANCEL))
                    while (await self._receive())[0] == DATA:
                        pass
                    self._busy = False

    async def end(self, *, keep: bool, report: bool = False) -> None:
        """Take down. ``keep``: everything written is on disk afterwards; ``report``: or this raises.

        Raises:
            WorkerError
        """
        try:
            if keep and not self._busy:
                await self.call("close")
        except WorkerError:
            if report:
                raise
        finally:
            self._to.close()
            try:
                async with asyncio.timeout(_PATIENCE):
                    while await self._from.read(1 << 16):
                        pass
                    await self._process.wait()
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        await self._to.wait_closed()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            await self._listening

    # -- frames

    async def _request(self, verb: str, arguments: dict[str, Any]) -> None:
        if self._busy:
            raise WorkerError("fault", f"{verb}: an earlier request was not answered")
        self._busy = True
        await self._send(encode_document(REQUEST, {"verb": verb, **arguments}))

    async def _send_data(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_BODY):
            piece = view[start : start + MAX_BODY]
            self._to.write(HEADER.pack(DATA, len(piece)))
            await self._send(piece)

    async def _send(self, frame: bytes | memoryview) -> None:
        try:
            self._to.write(frame)  # whole frames, so that a cancelled drain() tears none
            await self._to.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._death() from None

    async def _receive(self) -> tuple[int, bytes]:
        """The next frame. Being cancelled in the middle of one does not lose its beginning."""
        try:
            if self._header is None:
                self._header = HEADER.unpack(await self._from.readexactly(HEADER.size))
            kind, length = self._header
            body = await self._from.readexactly(length)
            self._header = None
            return kind, body
        except asyncio.IncompleteReadError:
            raise await self._death() from None

    async def _reply(self) -> dict[str, Any]:
        return self._finish(*await self._receive())

    def _finish(self, kind: int, body: bytes) -> dict[str, Any]:
        """The answer to the request: its result, or its error."""
        document: dict[str, Any] = json.loads(body)
        if kind not in (REPLY, ERROR):
            raise WorkerError("fault", f"the storage worker sent a frame of type {kind}")
        self._busy = False
        if kind == ERROR:
            raise WorkerError(document["kind"], document["message"], document["errno"])
        return document

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Keep the last words; the child must never block on them."""
        while words := await stream.read(1 << 16):
            self._words = (self._words + words)[-_LAST_WORDS:]

    async def _death(self) -> WorkerError:
        self._to.close()
        await self._process.wait()
        await asyncio.shield(self._listening)
        last = self._words.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no last words"]
        return WorkerError("fault", f"the storage worker ended with {self._process.returncode}: {last[0]}")


class Workshop:
    """The children of one store. ``root`` is the store's directory."""

    def __init__(self, root: Path, *, slots: int) -> None:
        self._work = root / ".work"
        self._slots = asyncio.Semaphore(slots)

    async def open(self) -> int:
        """Make the work directory and kill a predecessor's children; returns how many."""
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await asyncio.to_thread(kill_leftovers, self._work)

    @contextlib.asynccontextmanager
    async def session(self, *, keep: bool = False) -> AsyncIterator[Worker]:
        """A child of one's own. ``keep``: what was written counts also when the body raises."""
        async with self._slots:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", str(_MAIN), str(self._work)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2 * MAX_BODY,
                start_new_session=True,
            )
            worker = Worker(process)
            try:
                yield worker
            except BaseException:
                await uninterrupted(worker.end(keep=keep))
                raise
            await uninterrupted(worker.end(keep=True, report=True))


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Finish ``work`` even when our task is cancelled (again): nothing may stay half done.

    The cancellation is forgotten: what it came too late for has happened.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
