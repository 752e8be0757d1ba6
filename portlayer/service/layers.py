"""The Layers service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.registry import Registry
from portlayer.portlayer_pb2 import (
    CopyOutChunk,
    Layer,
    LayerList,
    LayerRef,
    PutLayerChunk,
    Reason,
)
from portlayer.portlayer_pb2_grpc import LayersServicer
from portlayer.storage import ImageStore, LayerInfo
from tether.tether_pb2 import Empty

__all__ = ["Layers"]


class Layers(LayersServicer):
    def __init__(self, images: ImageStore, registry: Registry) -> None:
        self._images = images
        self._registry = registry

    async def Put(self, request: AsyncIterator[PutLayerChunk], context: Any) -> Layer:
        first = None
        async for chunk in request:
            first = chunk
            break
        if first is None or not first.HasField("header"):
            raise PortLayerError(Reason.UNSPECIFIED, "a layer begins with its header")
        header = first.header
        info = await self._images.put(
            chain_id=header.chain_id,
            parent=header.parent,
            diff_id=header.diff_id,
            labels=dict(header.labels),
            chunks=_data(first, request),
        )
        return _message(info)

    async def Get(self, request: LayerRef, context: Any) -> Layer:
        return _message(self._images.get(request.chain_id))

    async def List(self, request: Empty, context: Any) -> LayerList:
        return LayerList(layers=[_message(info) for info in self._images.list()])

    async def Remove(self, request: LayerRef, context: Any) -> Empty:
        await self._images.remove(request.chain_id, users=self._registry.layers_in_use())
        return Empty()

    async def Export(self, request: LayerRef, context: Any) -> AsyncIterator[CopyOutChunk]:
        async with aclosing(self._images.export(request.chain_id)) as chunks:
            async for data in chunks:
                yield CopyOutChunk(data=data)


async def _data(first: PutLayerChunk, request: AsyncIterator[PutLayerChunk]) -> AsyncIterator[bytes]:
    """The layer's bytes; ends normally only behind ``commit``, which is what makes the layer stay."""
    if first.data:
        yield first.data
    committed = first.commit
    async for chunk in request:
        if committed:
            raise PortLayerError(Reason.UNSPECIFIED, "nothing may follow a layer's commit")
        if chunk.data:
            yield chunk.data
        committed = chunk.commit
    if not committed:
        raise PortLayerError(Reason.UNSPECIFIED, "the layer's stream ended without a commit")


def _message(info: LayerInfo) -> Layer:
    return Layer(
        chain_id=info.chain_id,
        parent=info.parent,
        diff_id=info.diff_id,
        size=info.size,
        disk_bytes=info.disk_bytes,
        path=str(info.path),
        empty=info.empty,
        labels=info.labels,
        archive_size=info.archive_size,
    )
