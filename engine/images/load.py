"""`docker load` and `docker import`: archives from a client, spooled, then taken apart in order.

The spool file has no name and goes with the request, whatever happens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from engine.http import ApiError, InternalError
from engine.images.archive import ArchivedImage, ArchivedLayer, read_archive
from engine.images.catalog import Catalog
from engine.images.config import chain_ids, parse_config
from engine.images.index import StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.pipe import through_thread
from engine.images.progress import Progress
from engine.images.spool import Spool, SpoolFile
from engine.images.tarindex import index_tar
from engine.images.transfer import LAYER_LIMIT, unpacked
from engine.registry.decompress import decompress
from engine.registry.digest import short
from engine.registry.errors import BadContent
from engine.registry.platform import Platform
from engine.registry.reference import Reference

__all__ = ["Loader", "fill"]

_CHUNK = 1 << 20


class Loader:
    def __init__(self, catalog: Catalog, layers: LayerPool, spool: Spool) -> None:
        self._catalog = catalog
        self._layers = layers
        self._spool = spool

    async def load(
        self, body: AsyncIterator[bytes], platform: Platform | None, progress: Progress, *, quiet: bool
    ) -> list[StoredImage]:
        """Everything in the archive, or an error; images before the failing one stay, as with docker."""
        loaded: list[StoredImage] = []
        with self._spool.file() as file:
            try:
                await fill(file, body)
                images = await asyncio.to_thread(_read, file, platform)
                for image in images:
                    stored = await self._image(file, image, progress, quiet=quiet)
                    await self._name(stored, image, progress)
                    loaded.append(stored)
            except BadContent as error:
                raise InternalError(str(error)) from error
        return loaded

    async def _image(
        self, file: SpoolFile, image: ArchivedImage, progress: Progress, *, quiet: bool
    ) -> StoredImage:
        chain = chain_ids(image.config.diff_ids)
        async with self._layers.hold(chain):
            present = await self._layers.present()
            layers: list[StoredLayer] = []
            for number, (chain_id, layer) in enumerate(zip(chain, image.layers, strict=True)):
                diff_id = image.config.diff_ids[number]
                known = present.get(chain_id)
                if known is None:
                    chunks = _layer(file, layer, None if quiet else progress, short(diff_id))
                    async with contextlib.aclosing(chunks):
                        known = await self._layers.put(
                            chain_id=chain_id,
                            parent=chain[number - 1] if number else "",
                            diff_id=diff_id,
                            chunks=chunks,
                        )
                layers.append(StoredLayer(chain_id=chain_id, diff_id=diff_id, size=known.size))
            stored = StoredImage(config=image.config, layers=tuple(layers))
            async with self._catalog.changing:
                await self._catalog.add(stored)
        return stored

    async def _name(self, stored: StoredImage, image: ArchivedImage, progress: Progress) -> None:
        async with self._catalog.changing:
            index = await self._catalog.index()
            for name in image.names:
                before = index.named(name)
                if before and before != stored.id:
                    progress.text(
                        f"The image {name.familiar} already exists, "
                        f"renaming the old one with ID {before} to empty string\n"
                    )
                await self._catalog.name(name, stored.id)
                progress.text(f"Loaded image: {name.familiar}\n")
        if not image.names:
            progress.text(f"Loaded image ID: {stored.id}\n")

    async def import_(
        self,
        body: AsyncIterator[bytes],
        *,
        config: Mapping[str, Any],
        platform: Platform,
        comment: str,
        name: Reference | None,
    ) -> StoredImage:
        """One layer from a bare tar, with a configuration of its own."""
        with self._spool.file() as file:
            try:
                diff_id = await fill(file, body)
                await asyncio.to_thread(
                    index_tar, file.read, file.size
                )  # a clear error before anything is made
            except BadContent as error:
                raise ApiError(str(error), status=400) from error
            async with self._layers.hold([diff_id]):
                present = await self._layers.present()
                layer = present.get(diff_id)
                if layer is None:
                    async with contextlib.aclosing(file.content()) as chunks:
                        layer = await self._layers.put(
                            chain_id=diff_id, parent="", diff_id=diff_id, chunks=chunks
                        )
                image = StoredImage(
                    config=parse_config(_imported(config, platform, comment, diff_id)),
                    layers=(StoredLayer(chain_id=diff_id, diff_id=diff_id, size=layer.size),),
                )
                async with self._catalog.changing:
                    await self._catalog.add(image, [name] if name else [])
        return image


async def fill(file: SpoolFile, body: AsyncIterator[bytes]) -> str:
    """Spool the body decompressed; the digest of what lies there."""
    hashing = hashlib.sha256()

    def work(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for piece in decompress(chunks, limit=LAYER_LIMIT):
            hashing.update(piece)
            file.append(piece)
        yield b""

    async with contextlib.aclosing(through_thread(work, body)) as nothing:
        async for _ in nothing:
            raise AssertionError("the spool keeps all pieces to itself")
    return f"sha256:{hashing.hexdigest()}"


def _read(file: SpoolFile, platform: Platform | None) -> list[ArchivedImage]:
    return read_archive(index_tar(file.read, file.size), file.read, platform)


async def _layer(
    file: SpoolFile, layer: ArchivedLayer, progress: Progress | None, name: str
) -> AsyncGenerator[bytes, None]:
    async def blob() -> AsyncGenerator[bytes, None]:
        done = 0
        while done < layer.member.size:
            size = min(_CHUNK, layer.member.size - done)
            data = await asyncio.to_thread(file.read, layer.member.offset + done, size)
            done += len(data)
            if progress is not None:
                progress.numbers(name, "Loading layer", done, layer.member.size)
            yield data

    transform = partial(unpacked, layer.digest) if layer.digest else partial(decompress, limit=LAYER_LIMIT)
    async with contextlib.aclosing(through_thread(transform, blob())) as pieces:
        async for piece in pieces:
            yield piece


def _imported(config: Mapping[str, Any], platform: Platform, comment: str, diff_id: str) -> bytes:
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    document: dict[str, Any] = {
        "architecture": platform.architecture,
        "comment": comment,
        "config": config,
        "created": now,
        "history": [{"created": now, "comment": comment}],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    if platform.variant:
        document["variant"] = platform.variant
    return json.dumps(document, separators=(",", ":")).encode()
