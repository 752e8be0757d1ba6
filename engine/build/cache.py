"""The build cache: which image came of an instruction on an image, the last time.

``builds/<hash>`` names it; the hash is of the parent, the whole configuration and the instruction,
copied files' checksums included. An entry whose image has gone is no entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.images.catalog import Catalog
from engine.images.index import ImageIndex, StoredImage
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["BuildCache", "step_key"]

PREFIX = "builds/"


def step_key(parent: str, config: Mapping[str, Any], command: Sequence[str], platform: str) -> str:
    words = json.dumps([parent, config, list(command), platform], sort_keys=True)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


class BuildCache:
    def __init__(self, port: PortLayer, catalog: Catalog) -> None:
        self._port = port
        self._catalog = catalog

    async def find(self, key: str) -> StoredImage | None:
        try:
            item = await self._port.call(self._port.keys.Get, pb.KeyRef(key=PREFIX + key), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise
            return None
        image = (await self._catalog.index()).get(item.value.decode("ascii", "replace"))
        if image is None:
            await self._delete(PREFIX + key)
        return image

    async def note(self, key: str, image: StoredImage) -> None:
        value = pb.KeyValue(key=PREFIX + key, value=image.id.encode())
        await self._port.call(self._port.keys.Put, value, idempotent=True)

    async def prune(self) -> list[str]:
        """Forget everything. The images stay: `docker image prune` is for them."""
        request = pb.KeyPrefix(prefix=PREFIX)
        reply = await self._port.call(self._port.keys.List, request, idempotent=True)
        for item in reply.items:
            await self._delete(item.key)
        return [item.key.removeprefix(PREFIX) for item in reply.items]

    async def _delete(self, key: str) -> None:
        try:
            await self._port.call(self._port.keys.Delete, pb.KeyRef(key=key), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise


def from_image(
    index: ImageIndex, names: Sequence[str], parent: StoredImage | None, created_by: str
) -> tuple[StoredImage, int] | None:
    """`--cache-from`: an image whose history goes on from ``parent`` with this very instruction.

    The image, and how many of its layers belong to the step's result.
    """
    for name in names:
        image = index.resolve(name)
        mine = parent.config.history if parent is not None else ()
        theirs = image.config.history
        below = [layer.diff_id for layer in parent.layers] if parent is not None else []
        position = len(mine)
        if len(theirs) <= position or theirs[position].created_by != created_by:
            continue
        same_steps = [step.created_by for step in theirs[:position]] == [step.created_by for step in mine]
        layers = [layer.diff_id for layer in image.layers]
        count = len(below) + (not theirs[position].empty_layer)
        if same_steps and layers[: len(below)] == below and len(layers) >= count:
            return image, count
    return None
