"""What registries have of our layers and images: so that a push moves only what they lack.

``blobs/<diff ID>``: the compressed blobs that are known to hold a layer, and the repositories that
have them. ``manifests/<image ID>``: the manifest an image was pulled with, byte for byte. Hints only:
a registry is asked before anything is believed, and a lost document costs an upload.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.registry.manifest import Descriptor
from engine.registry.reference import Reference
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["KnownBlob", "KnownManifest", "Provenance"]

logger = logging.getLogger(__name__)

BLOBS = "blobs/"
MANIFESTS = "manifests/"
_BLOBS_LIMIT = 16
_REPOSITORIES_LIMIT = 16


@dataclass(frozen=True, kw_only=True)
class KnownBlob:
    descriptor: Descriptor
    repositories: tuple[str, ...]  # "domain/path", newest first


@dataclass(frozen=True, kw_only=True)
class KnownManifest:
    media_type: str
    data: bytes


class Provenance:
    def __init__(self, port: PortLayer) -> None:
        self._port = port

    async def blobs(self, diff_id: str) -> list[KnownBlob]:
        """Newest first."""
        raw = await self._get(BLOBS + _hex(diff_id))
        try:
            return [
                KnownBlob(
                    descriptor=Descriptor(
                        media_type=str(item["mediaType"]), digest=str(item["digest"]), size=int(item["size"])
                    ),
                    repositories=tuple(map(str, item["repositories"])),
                )
                for item in raw or ()
            ]
        except (KeyError, TypeError, ValueError) as error:
            logger.error("%s%s is malformed and not used: %r", BLOBS, diff_id, error)
            return []

    async def note(self, diff_id: str, descriptor: Descriptor, repository: Reference) -> None:
        """This blob holds the layer, and this repository has it."""
        name = repository.name
        known = await self.blobs(diff_id)
        if known and known[0].descriptor == descriptor and known[0].repositories[:1] == (name,):
            return
        blob = KnownBlob(descriptor=descriptor, repositories=(name,))
        for item in known:
            if item.descriptor.digest == descriptor.digest:
                others = tuple(other for other in item.repositories if other != name)
                blob = replace(blob, repositories=(name, *others)[:_REPOSITORIES_LIMIT])
        rest = [item for item in known if item.descriptor.digest != descriptor.digest]
        document = [
            {
                "mediaType": item.descriptor.media_type,
                "digest": item.descriptor.digest,
                "size": item.descriptor.size,
                "repositories": item.repositories,
            }
            for item in (blob, *rest)[:_BLOBS_LIMIT]
        ]
        await self._put(BLOBS + _hex(diff_id), document)

    async def manifest(self, image_id: str) -> KnownManifest | None:
        raw = await self._get(MANIFESTS + _hex(image_id))
        if not isinstance(raw, dict):
            return None
        try:
            return KnownManifest(
                media_type=str(raw["mediaType"]), data=base64.b64decode(raw["data"], validate=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            logger.error("%s%s is malformed and not used: %r", MANIFESTS, image_id, error)
            return None

    async def note_manifest(self, image_id: str, media_type: str, data: bytes) -> None:
        document = {"mediaType": media_type, "data": base64.b64encode(data).decode()}
        await self._put(MANIFESTS + _hex(image_id), document)

    async def sweep(self, images: Collection[str], diff_ids: Collection[str]) -> None:
        """Forget what is about no image and no layer any more."""
        for prefix, wanted in ((BLOBS, diff_ids), (MANIFESTS, images)):
            kept = {prefix + _hex(name) for name in wanted}
            for digit in "0123456789abcdef":  # in parts: one message has a limit
                request = pb.KeyPrefix(prefix=prefix + digit)
                reply = await self._port.call(self._port.keys.List, request, idempotent=True)
                for item in reply.items:
                    if item.key not in kept:
                        await self._delete(item.key)

    async def forget(self, images: Sequence[str], diff_ids: Sequence[str]) -> None:
        for key in [MANIFESTS + _hex(name) for name in images] + [BLOBS + _hex(name) for name in diff_ids]:
            await self._delete(key)

    async def _get(self, key: str) -> Any:
        try:
            item = await self._port.call(self._port.keys.Get, pb.KeyRef(key=key), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise
            return None
        try:
            return json.loads(item.value)
        except (ValueError, RecursionError) as error:
            logger.error("%s is malformed and not used: %s", key, error)
            return None

    async def _put(self, key: str, document: Any) -> None:
        value = json.dumps(document).encode()
        await self._port.call(self._port.keys.Put, pb.KeyValue(key=key, value=value), idempotent=True)

    async def _delete(self, key: str) -> None:
        try:
            await self._port.call(self._port.keys.Delete, pb.KeyRef(key=key), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
