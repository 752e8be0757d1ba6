"""The images of this VCH: an index in memory over documents that the port layer keeps.

Order of writing, so that a kill between any two steps leaves nothing wrong: layers, then the
image's document, then its names; removal goes the other way round. What a kill leaves behind is
swept by the next load: names without an image and layers without one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from engine.catalog import ImageRecord
from engine.images.documents import (
    DIGESTS,
    IMAGES,
    TAGS,
    BadDocument,
    NameDocument,
    decode_image,
    decode_name,
    encode_image,
    encode_name,
    image_key,
    name_key,
)
from engine.images.index import ImageIndex, StoredImage
from engine.images.layers import LayerPool
from engine.images.provenance import Provenance
from engine.registry.reference import Reference
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["Catalog", "image_record"]

logger = logging.getLogger(__name__)


class Catalog:
    def __init__(self, port: PortLayer, layers: LayerPool, provenance: Provenance) -> None:
        self._port = port
        self._layers = layers
        self._provenance = provenance
        self._index: ImageIndex | None = None
        self._loading = asyncio.Lock()
        self.changing = asyncio.Lock()  # held by whoever reads, decides and then writes

    async def index(self) -> ImageIndex:
        """Loaded at the first call that finds the port layer up; callers only read it."""
        async with self._loading:
            if self._index is None:
                self._index = await self._load()
            return self._index

    async def resolve(self, reference: str) -> ImageRecord:
        index = await self.index()
        return image_record(index, index.resolve(reference), index.layers())

    async def list(self) -> list[ImageRecord]:
        index = await self.index()
        counts = index.layers()
        return [image_record(index, image, counts) for image in index]

    async def add(self, image: StoredImage, names: Sequence[Reference] = ()) -> None:
        """Store an image whose layers are there. Names move from the images that had them."""
        index = await self.index()
        if index.get(image.id) is None:
            await self._put(image_key(image.id), encode_image(image))
            index.add(image)
        for name in names:
            await self.name(name, image.id)

    async def name(self, reference: Reference, image_id: str) -> None:
        index = await self.index()
        if index.named(reference) == image_id and reference.digest:
            return
        document = NameDocument(reference=reference, image=image_id, time_ns=time.time_ns())
        await self._put(name_key(reference), encode_name(document))
        index.name(reference, image_id, document.time_ns)

    async def unname(self, reference: Reference) -> None:
        index = await self.index()
        await self._delete(name_key(reference))
        index.unname(reference)

    async def forget(self, image_id: str) -> Sequence[str]:
        """Remove an image without names, and the layers that only it had: their chain IDs."""
        index = await self.index()
        image = index.get(image_id)
        assert image is not None, "the image to forget was found in the index"
        await self._delete(image_key(image_id))
        index.discard(image_id)
        left = {layer.diff_id for other in index for layer in other.layers}
        gone = [layer.diff_id for layer in image.layers if layer.diff_id not in left]
        await self._provenance.forget([image_id], gone)
        return await self._layers.remove_unused(
            [layer.chain_id for layer in reversed(image.layers)], index.layers
        )

    async def sweep(self) -> None:
        """Remove layers that no image has any more: those of force-removed images whose containers went."""
        index = await self.index()
        removed = await self._layers.sweep(index.layers)
        if removed:
            logger.info("swept %d layers without an image", len(removed))

    async def _load(self) -> ImageIndex:
        index = ImageIndex()
        whole = True
        images = [item for digit in "0123456789abcdef" for item in await self._stored(IMAGES + digit)]
        for item in images:  # in parts, because one message has a limit and configurations may be large
            try:
                index.add(decode_image(item.key, item.value))
            except BadDocument as error:
                whole = False  # its layers are somebody's: no sweep
                logger.error("cannot read an image: %s", error)
        for item in [*await self._stored(TAGS), *await self._stored(DIGESTS)]:
            try:
                name = decode_name(item.key, item.value)
            except BadDocument as error:
                logger.error("cannot read an image's name: %s", error)
                continue
            if index.get(name.image) is not None:
                index.name(name.reference, name.image, name.time_ns)
            elif whole:
                await self._delete(item.key)
        if whole:
            diff_ids = {layer.diff_id for image in index for layer in image.layers}
            await self._provenance.sweep({image.id for image in index}, diff_ids)
            removed = await self._layers.sweep(index.layers)
            logger.info("loaded %d images, swept %d layers without one", len(index), len(removed))
        return index

    async def _stored(self, prefix: str) -> Iterable[pb.KeyValue]:
        reply = await self._port.call(self._port.keys.List, pb.KeyPrefix(prefix=prefix), idempotent=True)
        return reply.items

    async def _put(self, key: str, value: bytes) -> None:
        await self._port.call(self._port.keys.Put, pb.KeyValue(key=key, value=value), idempotent=True)

    async def _delete(self, key: str) -> None:
        try:
            await self._port.call(self._port.keys.Delete, pb.KeyRef(key=key), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise


def image_record(index: ImageIndex, image: StoredImage, counts: dict[str, int]) -> ImageRecord:
    """What the other rooms see of an image. ``counts``: images per layer."""
    platform = image.config.platform
    return ImageRecord(
        id=image.id,
        layer=image.top,
        config=image.config.config,
        os=platform.os,
        architecture=platform.architecture,
        variant=platform.variant,
        repo_tags=[reference.familiar for reference in index.tags(image.id)],
        repo_digests=[reference.familiar for reference in index.digests(image.id)],
        created=image.config.created,
        size=image.size,
        shared_size=sum(layer.size for layer in image.layers if counts.get(layer.chain_id, 0) > 1),
    )
