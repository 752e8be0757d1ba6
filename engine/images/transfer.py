"""One layer on its way from a registry to the port layer, shared by all pulls that want it.

A layer whose parent is there already streams: blob → digest → decompress → PutLayer, nothing on
disk. The others are downloaded ahead into the spool, three at a time, and applied in their turn,
reading along behind the download. The layer is committed only after the whole blob had the right
digest. A transfer nobody waits for any more is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from engine.images.index import StoredLayer
from engine.images.layers import LayerPool
from engine.images.pipe import through_thread
from engine.images.progress import Progress
from engine.images.spool import Spool, SpoolFile
from engine.registry.client import RegistryClient
from engine.registry.decompress import decompress
from engine.registry.digest import hasher, short
from engine.registry.errors import BadContent
from engine.registry.manifest import Descriptor

__all__ = ["LAYER_LIMIT", "LayerWanted", "Transfer", "Transfers", "unpacked"]

LAYER_LIMIT = 1 << 40  # uncompressed bytes of one layer: the disk is the real limit
_PARALLEL = 3


@dataclass(frozen=True, kw_only=True)
class LayerWanted:
    chain_id: str
    parent: str
    diff_id: str
    blob: Descriptor

    @property
    def name(self) -> str:
        """What people see: the blob's digest, shortened."""
        return short(self.blob.digest)


class Transfers:
    """All transfers of one engine, by chain ID."""

    def __init__(
        self, layers: LayerPool, spool: Spool, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.layers = layers
        self.sleep = sleep
        self.spool = spool
        self.slots = asyncio.Semaphore(_PARALLEL)
        self._running: dict[str, Transfer] = {}

    def join(
        self, wanted: LayerWanted, parent: Transfer | None, client: RegistryClient, progress: Progress
    ) -> Transfer:
        """The running transfer of this layer, or a new one. Each `join` needs one `leave`."""
        transfer = self._running.get(wanted.chain_id)
        if transfer is None or transfer.task.done():
            transfer = Transfer(self, wanted, parent, client)
            self._running[wanted.chain_id] = transfer
        transfer.watch(progress)
        return transfer

    async def leave(self, transfer: Transfer, progress: Progress) -> None:
        """The last one to leave cancels, and returns when nothing of it is left."""
        if not transfer.unwatch(progress):
            if self._running.get(transfer.wanted.chain_id) is transfer:
                del self._running[transfer.wanted.chain_id]
            transfer.task.cancel()
            await asyncio.wait([transfer.task])


class Transfer:
    def __init__(
        self, house: Transfers, wanted: LayerWanted, parent: Transfer | None, client: RegistryClient
    ) -> None:
        self.wanted = wanted
        self._house = house
        self._parent = parent
        self._client = client
        self._watchers: list[Progress] = []
        self._last: Callable[[Progress], None] | None = None
        self.task: asyncio.Task[StoredLayer] = asyncio.create_task(self._run())
        self.task.add_done_callback(_retrieve)

    async def result(self) -> StoredLayer:
        """Wait; being cancelled here does not cancel the transfer."""
        await asyncio.wait([self.task])
        return self.task.result()

    def watch(self, progress: Progress) -> None:
        self._watchers.append(progress)
        if self._last is not None:
            self._last(progress)

    def unwatch(self, progress: Progress) -> bool:
        self._watchers.remove(progress)
        return bool(self._watchers)

    def _say(self, status: str) -> None:
        self._tell(lambda progress: progress.state(self.wanted.name, status))

    def _count(self, status: str, current: int) -> None:
        total = self.wanted.blob.size
        self._tell(lambda progress: progress.numbers(self.wanted.name, status, current, total))

    def _tell(self, what: Callable[[Progress], None]) -> None:
        self._last = what
        for progress in self._watchers:
            what(progress)

    async def _run(self) -> StoredLayer:
        house, size = self._house, self.wanted.blob.size
        if house.slots.locked():
            self._say("Waiting")
        async with contextlib.AsyncExitStack() as stack:
            slot = await stack.enter_async_context(contextlib.AsyncExitStack())
            await slot.enter_async_context(house.slots)
            if not self._is_turn():
                if house.spool.reserve(size):
                    stack.callback(house.spool.release, size)
                    file = stack.enter_context(house.spool.file())
                    return await self._ahead(file, slot)
                await slot.aclose()  # no room: wait without keeping others from downloading
                await self._turn()
                await slot.enter_async_context(house.slots)
            return await self._apply(self._streamed())

    def _is_turn(self) -> bool:
        return self._parent is None or (self._parent.task.done() and self._parent.task.exception() is None)

    async def _turn(self, download: asyncio.Task[None] | None = None) -> None:
        """Wait for the parent; its failure, or that of our own download, is ours."""
        if self._parent is None:
            return
        waiting = {self._parent.task, download} - {None}
        while not self._parent.task.done():
            await asyncio.wait([task for task in waiting if task], return_when=asyncio.FIRST_COMPLETED)
            if download is not None and download.done():
                download.result()
                waiting.discard(download)
        self._parent.task.result()

    async def _ahead(self, file: SpoolFile, slot: contextlib.AsyncExitStack) -> StoredLayer:
        """Download now, apply in turn. The slot is given back as soon as the download ends."""
        download = asyncio.create_task(self._download(file, slot))
        try:
            await self._turn(download)
            return await self._apply(self._spooled(file, download))
        finally:
            download.cancel()
            await asyncio.wait([download])

    async def _download(self, file: SpoolFile, slot: contextlib.AsyncExitStack) -> None:
        hashing = hasher(self.wanted.blob.digest)

        def keep(chunk: bytes) -> None:
            hashing.update(chunk)
            file.append(chunk)

        try:
            async with contextlib.aclosing(self._blob()) as blob:
                async for chunk in blob:
                    await asyncio.to_thread(keep, chunk)
                    file.written()
            _check(self.wanted.blob.digest, hashing.hexdigest())
        except BaseException as error:
            file.fail(error)
            raise
        self._say("Download complete")
        file.end()
        await slot.aclose()

    async def _blob(self) -> AsyncGenerator[bytes, None]:
        """The blob as it comes, counted."""
        current = 0
        self._count("Downloading", 0)
        async with contextlib.aclosing(self._client.blob(self.wanted.blob, retry=self._retry)) as blob:
            async for chunk in blob:
                current += len(chunk)
                self._count("Downloading", current)
                yield chunk
        self._say("Verifying Checksum")

    async def _retry(self, seconds: int) -> None:
        for left in range(seconds, 0, -1):
            self._say(f"Retrying in {left} second{'' if left == 1 else 's'}")
            await self._house.sleep(1)

    async def _streamed(self) -> AsyncGenerator[bytes, None]:
        transform = partial(unpacked, self.wanted.blob.digest)
        async with contextlib.aclosing(through_thread(transform, self._blob())) as pieces:
            async for piece in pieces:
                yield piece
        self._say("Download complete")

    async def _spooled(self, file: SpoolFile, download: asyncio.Task[None]) -> AsyncGenerator[bytes, None]:
        async def counted() -> AsyncGenerator[bytes, None]:
            current = 0
            async with contextlib.aclosing(file.tail()) as tail:
                async for chunk in tail:
                    current += len(chunk)
                    if download.done():  # until then its own numbers are shown
                        self._count("Extracting", current)
                    yield chunk

        transform = partial(decompress, limit=LAYER_LIMIT)
        async with contextlib.aclosing(through_thread(transform, counted())) as pieces:
            async for piece in pieces:
                yield piece

    async def _apply(self, pieces: AsyncGenerator[bytes, None]) -> StoredLayer:
        async with contextlib.aclosing(pieces):
            layer = await self._house.layers.put(
                chain_id=self.wanted.chain_id,
                parent=self.wanted.parent,
                diff_id=self.wanted.diff_id,
                chunks=pieces,
            )
        self._count("Extracting", self.wanted.blob.size)
        self._say("Pull complete")
        return StoredLayer(chain_id=layer.chain_id, diff_id=self.wanted.diff_id, size=layer.size)


def unpacked(digest: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Plain tar bytes of a blob; BadContent at their end if the blob had another digest."""
    hashing = hasher(digest)

    def hashed() -> Iterator[bytes]:
        for chunk in chunks:
            hashing.update(chunk)
            yield chunk

    source = hashed()
    failure: BadContent | None = None
    try:
        yield from decompress(source, limit=LAYER_LIMIT)
    except BadContent as error:
        failure = error
        for _ in source:  # the rest decides which is wrong: the transport or the archive
            pass
    _check(digest, hashing.hexdigest())
    if failure is not None:
        raise failure


def _check(digest: str, found: str) -> None:
    if digest.partition(":")[2] != found:
        raise BadContent(f"filesystem layer verification failed for digest {digest}")


def _retrieve(task: asyncio.Task[StoredLayer]) -> None:
    """A transfer whose watchers failed earlier has nobody left to hear of its error."""
    if not task.cancelled():
        task.exception()
