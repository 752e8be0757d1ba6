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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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

__all__ = ["Worker", "WorkerError", "Workshop"]

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
    """One child. One request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._to = process.stdin
        self._from = process.stdout
        self._words = asyncio.create_task(process.stderr.read(_LAST_WORDS))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        await self._request(verb, arguments)
        return await self._reply()

    async def upload(self, verb: str, chunks: AsyncIterator[bytes], **arguments: Any) -> dict[str, Any]:
        """Send chunks as they come, no faster than the child takes them.

        When ``chunks`` raises, the child has dropped the rest before that exception gets on.
        """
        await self._request(verb, arguments)
        reply = asyncio.create_task(self._reply())
        try:
            try:
                async for chunk in chunks:
                    if reply.done():
                        break
                    await self._send_data(chunk)
            except WorkerError:
                raise
            except BaseException:
                await self._send(encode(CANCEL))
                with contextlib.suppress(WorkerError):
                    await reply
                raise
            await self._send(encode(END))
            return await reply
        finally:
            if not reply.done():
                reply.cancel()
            with contextlib.suppress(WorkerError, asyncio.CancelledError):
                await reply

    async def download(self, verb: str, **arguments: Any) -> AsyncIterator[bytes]:
        await self._request(verb, arguments)
        finished = False
        try:
            while True:
                kind, body = await self._receive()
                if kind == DATA:
                    yield body
                    continue
                finished = True
                self._check(kind, body)
                return
        finally:
            if not finished:
                await self._send(encode(CANCEL))
                while (await self._receive())[0] == DATA:
                    pass

    async def finish(self) -> None:
        """Take down in order: everything written is on disk, or this raises."""
        await self.call("close")
        self._to.close()
        await self._process.wait()
        await self._words

    async def abandon(self) -> None:
        """Take down; what was written does not matter."""
        self._to.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                while await self._from.read(1 << 16):
                    pass
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._words

    # -- frames

    async def _request(self, verb: str, arguments: dict[str, Any]) -> None:
        await self._send(encode_document(REQUEST, {"verb": verb, **arguments}))

    async def _send_data(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_BODY):
            piece = view[start : start + MAX_BODY]
            self._to.write(HEADER.pack(DATA, len(piece)))
            await self._send(piece)

    async def _send(self, frame: bytes | memoryview) -> None:
        try:
            self._to.write(frame)
            await self._to.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._death() from None

    async def _receive(self) -> tuple[int, bytes]:
        try:
            kind, length = HEADER.unpack(await self._from.readexactly(HEADER.size))
            return kind, await self._from.readexactly(length)
        except asyncio.IncompleteReadError:
            raise await self._death() from None

    async def _reply(self) -> dict[str, Any]:
        kind, body = await self._receive()
        return self._check(kind, body)

    def _check(self, kind: int, body: bytes) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(body)
        if kind == ERROR:
            raise WorkerError(document["kind"], document["message"], document["errno"])
        if kind != REPLY:
            raise WorkerError("fault", f"the storage worker sent a frame of type {kind}")
        return document

    async def _death(self) -> WorkerError:
        code = await self._process.wait()
        words = (await asyncio.shield(self._words)).decode("utf-8", "replace").strip()
        return WorkerError("fault", f"the storage worker ended with {code}: {words.splitlines()[-1:]}")


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
    async def session(self) -> AsyncIterator[Worker]:
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
                await worker.finish()
            except BaseException:
                await _uninterrupted(worker.abandon())
                raise


async def _uninterrupted(work: Any) -> None:
    """Finish ``work`` even when our task is cancelled (again): processes must not stay behind."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
