"""Images made here: one new layer on a parent's, and a configuration of its own (commit, build).

A layer is named by the digest of its archive, so the archive is spooled before the port layer gets
it. Layers that no image came to stand on are swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import product
from engine.images.catalog import Catalog
from engine.images.config import ImageConfig, chain_ids, parse_config
from engine.images.index import StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.spool import Spool
from engine.registry.platform import Platform
from engine.registry.reference import Reference
from engine.timestamps import format_ns

__all__ = ["Maker", "NewImage", "describe"]

_EMPTY = bytes(1024)


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """What is said about an image that is being made."""

    parent: StoredImage | None
    platform: Platform
    config: Mapping[str, Any]
    created_by: str
    author: str = ""
    comment: str = ""
    container: str = ""
    container_config: Mapping[str, Any] | None = None


class Maker:
    def __init__(self, catalog: Catalog, layers: LayerPool, spool: Spool) -> None:
        self._catalog = catalog
        self._layers = layers
        self._spool = spool

    async def make(
        self,
        new: NewImage,
        archive: AsyncGenerator[bytes, None] | None = None,
        names: Sequence[Reference] = (),
    ) -> StoredImage:
        """The image, with a layer of ``archive`` unless that is None or has no entries."""
        below = new.parent.layers if new.parent is not None else ()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._layers.hold([layer.chain_id for layer in below]))
            layer = None
            if archive is not None:
                layer = await self._layer(archive, below, stack)
            layers = (*below, layer) if layer is not None else below
            config = describe(new, [item.diff_id for item in layers], empty=layer is None)
            parent = new.parent.id if new.parent is not None else ""
            image = StoredImage(config=parse_config(config), layers=layers, parent=parent)
            async with self._catalog.changing:
                await self._catalog.add(image, names)
        return image

    async def adopt(self, new: NewImage, layers: tuple[StoredLayer, ...]) -> StoredImage:
        """The image on layers that are there, those of another image (`--cache-from`)."""
        below = len(new.parent.layers) if new.parent is not None else 0
        config = describe(new, [layer.diff_id for layer in layers], empty=len(layers) == below)
        parent = new.parent.id if new.parent is not None else ""
        image = StoredImage(config=parse_config(config), layers=layers, parent=parent)
        async with self._catalog.changing:
            await self._catalog.add(image)
        return image

    async def _layer(
        self,
        archive: AsyncGenerator[bytes, None],
        below: Sequence[StoredLayer],
        stack: contextlib.AsyncExitStack,
    ) -> StoredLayer | None:
        file = stack.enter_context(self._spool.file())
        hashing = hashlib.sha256()

        def keep(chunk: bytes) -> None:
            hashing.update(chunk)
            file.append(chunk)

        async with contextlib.aclosing(archive):
            async for chunk in archive:
                await asyncio.to_thread(keep, chunk)
        if file.size <= len(_EMPTY) and not file.read(0, file.size).strip(b"\0"):
            return None
        diff_id = f"sha256:{hashing.hexdigest()}"
        chain = chain_ids([*(layer.diff_id for layer in below), diff_id])
        await stack.enter_async_context(self._layers.hold(chain[-1:]))
        known = (await self._layers.present()).get(chain[-1])
        if known is None:
            async with contextlib.aclosing(file.content()) as chunks:
                known = await self._layers.put(
                    chain_id=chain[-1], parent=chain[-2] if below else "", diff_id=diff_id, chunks=chunks
                )
        return StoredLayer(chain_id=chain[-1], diff_id=diff_id, size=known.size)


def describe(new: NewImage, diff_ids: Sequence[str], *, empty: bool) -> bytes:
    """The configuration's bytes, with the parent's history and one entry more."""
    now = format_ns(time.time_ns())
    entry: dict[str, Any] = {"created": now}
    if new.author:
        entry["author"] = new.author
    if new.created_by:
        entry["created_by"] = new.created_by
    if new.comment:
        entry["comment"] = new.comment
    if empty:
        entry["empty_layer"] = True
    inherited: ImageConfig | None = new.parent.config if new.parent is not None else None
    document: dict[str, Any] = {
        "architecture": new.platform.architecture,
        "config": new.config,
        "created": now,
        "docker_version": product.VERSION,
        "history": [*_history(inherited), entry],
        "os": new.platform.os,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    optional = {
        "author": new.author,
        "container": new.container,
        "container_config": new.container_config,
        "os.version": new.platform.os_version,
        "variant": new.platform.variant,
    }
    document.update({key: value for key, value in optional.items() if value})
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _history(config: ImageConfig | None) -> list[dict[str, Any]]:
    """As it stands in the parent, unknown fields included."""
    if config is None:
        return []
    history: list[dict[str, Any]] = json.loads(config.data).get("history") or []
    return history
