"""The port layer's layers, and the rule that keeps them: a layer goes when nobody stands on it.

"Nobody" is found out each time from what exists: images (the caller's set), pulls and loads under
way (`hold`), containers (the port layer refuses). Holding and removing exclude each other, so a pull
that has seen a layer keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping

from engine.http import InternalError
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["LayerPool"]


class LayerPool:
    def __init__(self, port: PortLayer) -> None:
        self._port = port
        self._held: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self.left_behind = False  # a hint: some layer was only kept for a container

    async def present(self) -> dict[str, pb.Layer]:
        reply = await self._port.call(self._port.layers.List, tether_pb2.Empty(), idempotent=True)
        return {layer.chain_id: layer for layer in reply.layers}

    async def archive_size(self, chain_id: str) -> int:
        """How many bytes :meth:`archive` gives."""
        request = pb.LayerRef(chain_id=chain_id)
        layer = await self._port.call(self._port.layers.Get, request, idempotent=True)
        if not layer.archive_size:
            raise InternalError(
                f"layer {chain_id} was stored by an earlier version: "
                "remove the image and pull or load it again"
            )
        return layer.archive_size

    async def archive(self, chain_id: str) -> AsyncGenerator[bytes, None]:
        """The archive that the layer came as; raises at the end when the bytes are not those."""
        chunks = self._port.stream(self._port.layers.Export, pb.LayerRef(chain_id=chain_id))
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk.data

    @contextlib.asynccontextmanager
    async def hold(self, chain: Collection[str]) -> AsyncIterator[None]:
        """None of these layers is removed inside the block, whether they are there already or come."""
        async with self._lock:
            self._held.update(chain)
        try:
            yield
        finally:
            self._held.subtract(chain)
            for name in chain:
                if self._held[name] <= 0:
                    del self._held[name]

    async def put(
        self, *, chain_id: str, parent: str, diff_id: str, chunks: AsyncIterator[bytes]
    ) -> pb.Layer:
        """Make a layer of uncompressed tar bytes. If ``chunks`` raises, so does this, and nothing remains."""
        header = pb.LayerHeader(chain_id=chain_id, parent=parent, diff_id=diff_id)

        async def messages() -> AsyncGenerator[pb.PutLayerChunk, None]:
            yield pb.PutLayerChunk(header=header)
            async for chunk in chunks:
                yield pb.PutLayerChunk(data=chunk)
            yield pb.PutLayerChunk(commit=True)

        async with contextlib.aclosing(messages()) as stream:
            return await self._port.upload(self._port.layers.Put, stream)

    async def remove_unused(
        self, candidates: Iterable[str], used: Callable[[], Mapping[str, int]]
    ) -> list[str]:
        """Remove what of ``candidates`` (children before parents) nobody needs; those that went."""
        removed: list[str] = []
        async with self._lock:
            for chain_id in candidates:
                if chain_id in used() or self._held[chain_id]:
                    continue
                try:
                    await self._port.call(self._port.layers.Remove, pb.LayerRef(chain_id=chain_id))
                except PortLayerError as error:
                    if error.reason not in (pb.LAYER_IN_USE, pb.NO_SUCH_LAYER):
                        raise
                    self.left_behind |= error.reason == pb.LAYER_IN_USE
                else:
                    removed.append(chain_id)
        return removed

    async def sweep(self, used: Callable[[], Mapping[str, int]]) -> list[str]:
        """Remove every layer that no image has: left by a pull or a removal that was cut short."""
        self.left_behind = False
        return await self.remove_unused(_children_first(await self.present()), used)


def _children_first(layers: Mapping[str, pb.Layer]) -> list[str]:
    depths: dict[str, int] = {}
    for chain_id in layers:
        path: list[str] = []
        at = chain_id
        while at in layers and at not in depths and at not in path:
            path.append(at)
            at = layers[at].parent
        depth = depths.get(at, 0)
        for name in reversed(path):
            depth += 1
            depths[name] = depth
    return sorted(layers, key=lambda chain_id: depths[chain_id], reverse=True)
