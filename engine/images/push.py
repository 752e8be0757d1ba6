"""Pushing images: layers the registry lacks, the configuration, then the manifest.

An image goes up with the manifest it was pulled with, byte for byte, when the registry has or takes
over all of its blobs. Otherwise layers are compressed anew (same content, same diff ID, another
digest) and a manifest of the same kind names them; what a registry has taken is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.http import Forbidden, InternalError, NotFound
from engine.images.catalog import Catalog
from engine.images.index import StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.pipe import through_thread
from engine.images.progress import Progress
from engine.images.provenance import KnownBlob, KnownManifest, Provenance
from engine.registry.credentials import Credentials
from engine.registry.digest import short
from engine.registry.errors import BadContent, RegistryError, RegistryForbidden
from engine.registry.manifest import DOCKER_KIND, OCI_KIND, Descriptor, Kind, Manifest, parse_manifest
from engine.registry.reference import Reference
from engine.registry.sources import Source
from engine.registry.transport import Transport
from engine.registry.upload import RegistryUploader

__all__ = ["Pusher"]

_PARALLEL = 5
_PIECE = 8 << 20  # of an upload
_MOUNTS = 5  # repositories asked to lend a blob

_LEVEL = 6

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Target:
    """One push: where it goes, and who is told."""

    reference: Reference
    uploader: RegistryUploader
    progress: Progress
    slots: asyncio.Semaphore


class Pusher:
    def __init__(
        self,
        *,
        transport: Transport,
        sources: Callable[[Reference], Awaitable[list[Source]]],
        catalog: Catalog,
        layers: LayerPool,
        provenance: Provenance,
    ) -> None:
        self._transport = transport
        self._sources = sources
        self._catalog = catalog
        self._layers = layers
        self._provenance = provenance

    async def push(
        self, reference: Reference, credentials: Credentials, progress: Progress
    ) -> list[tuple[Reference, StoredImage]]:
        """One tag, or all of the repository's when ``reference`` has none; what was pushed.

        Raises ApiError in docker's words.
        """
        try:
            source = await self._target(reference)
            progress.message(f"The push refers to repository [{reference.name}]")
            uploader = RegistryUploader(self._transport, source, reference.path, credentials)
            pushed = []
            for tagged, image in await self._images(reference):
                target = _Target(
                    reference=tagged,
                    uploader=uploader,
                    progress=progress,
                    slots=asyncio.Semaphore(_PARALLEL),
                )
                await self._image(target, image)
                pushed.append((tagged, image))
        except RegistryForbidden as error:
            raise Forbidden(str(error)) from error
        except RegistryError as error:
            raise InternalError(str(error)) from error
        return pushed

    async def _target(self, reference: Reference) -> Source:
        """The registry itself, never a mirror."""
        for source in await self._sources(reference):
            if not source.mirror:
                return source
        raise RegistryForbidden(
            f"Access denied to unauthorized registry ({reference.domain}): this virtual container host may "
            "only use its mirrors"
        )

    async def _images(self, reference: Reference) -> list[tuple[Reference, StoredImage]]:
        index = await self._catalog.index()
        tags = [
            name for image in index for name in index.tags(image.id) if name.name_only == reference.name_only
        ]
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        wanted = [reference] if reference.tag else sorted(tags, key=str)
        found = []
        for name in wanted:
            image = index.get(index.named(name))
            if image is None:
                raise NotFound(f"tag does not exist: {name.familiar}")
            found.append((name, image))
        return found

    async def _image(self, target: _Target, image: StoredImage) -> None:
        for layer in image.layers:
            target.progress.state(short(layer.diff_id), "Preparing")
        async with self._layers.hold([layer.chain_id for layer in image.layers]):
            manifest = await self._as_pulled(target, image) or await self._anew(target, image)
        data, media_type = manifest
        digest = await target.uploader.put_manifest(target.reference.tag, data, media_type)
        target.progress.message(f"{target.reference.tag}: digest: {digest} size: {len(data)}")
        target.progress.aux({"Tag": target.reference.tag, "Digest": digest, "Size": len(data)})
        async with self._catalog.changing:
            await self._catalog.name(target.reference.with_digest(digest), image.id)
        await self._provenance.note_manifest(image.id, media_type, data)

    async def _as_pulled(self, target: _Target, image: StoredImage) -> tuple[bytes, str] | None:
        """The remembered manifest, when the registry has or takes over every layer that it names."""
        known = await self._provenance.manifest(image.id)
        manifest = _usable(known, image) if known is not None else None
        if known is None or manifest is None:
            return None

        async def found(layer: StoredLayer, blob: Descriptor) -> bool:
            async with target.slots:
                for candidate in await self._provenance.blobs(layer.diff_id):
                    if candidate.descriptor.digest == blob.digest:
                        return await self._is_there(target, layer, candidate)
                return await self._is_there(target, layer, KnownBlob(descriptor=blob, repositories=()))

        pairs = list(zip(image.layers, manifest.layers, strict=True))
        if not all(await _together([found(layer, blob) for layer, blob in pairs])):
            return None
        await self._config(target, image, manifest.config.digest)
        for layer, blob in pairs:
            await self._provenance.note(layer.diff_id, blob, target.reference)
        return known.data, known.media_type

    async def _anew(self, target: _Target, image: StoredImage) -> tuple[bytes, str]:
        known = await self._provenance.manifest(image.id)
        kind = OCI_KIND if known is not None and known.media_type == OCI_KIND.manifest else DOCKER_KIND
        unique = {layer.diff_id: layer for layer in image.layers}
        uploaded = await _together([self._layer(target, layer, kind) for layer in unique.values()])
        blobs = dict(zip(unique, uploaded, strict=True))
        await self._config(target, image, image.id)
        document = {
            "schemaVersion": 2,
            "mediaType": kind.manifest,
            "config": _shown(
                Descriptor(media_type=kind.config, digest=image.id, size=len(image.config.data))
            ),
            "layers": [_shown(blobs[layer.diff_id]) for layer in image.layers],
        }
        return json.dumps(document, indent=3).encode(), kind.manifest

    async def _config(self, target: _Target, image: StoredImage, digest: str) -> None:
        if not await target.uploader.has_blob(digest):
            await target.uploader.put_blob(image.config.data, digest)

    async def _layer(self, target: _Target, layer: StoredLayer, kind: Kind) -> Descriptor:
        async with target.slots:
            for candidate in await self._provenance.blobs(layer.diff_id):
                if await self._is_there(target, layer, candidate):
                    blob = candidate.descriptor
                    break
            else:
                blob = await self._upload(target, layer)
            # the kinds name the same bytes differently
            blob = Descriptor(media_type=kind.layer_like(blob.media_type), digest=blob.digest, size=blob.size)
            await self._provenance.note(layer.diff_id, blob, target.reference)
            return blob

    async def _is_there(self, target: _Target, layer: StoredLayer, blob: KnownBlob) -> bool:
        name = short(layer.diff_id)
        digest = blob.descriptor.digest
        if await target.uploader.has_blob(digest):
            target.progress.state(name, "Layer already exists")
            return True
        prefix = f"{target.reference.domain}/"
        lenders = [item.removeprefix(prefix) for item in blob.repositories if item.startswith(prefix)]
        for lender in [path for path in lenders if path != target.reference.path][:_MOUNTS]:
            if await target.uploader.mount(digest, lender):
                target.progress.state(name, f"Mounted from {lender}")
                return True
        return False

    async def _upload(self, target: _Target, layer: StoredLayer) -> Descriptor:
        """Compress and send, piece by piece; nothing but the piece is kept."""
        name = short(layer.diff_id)
        total = await self._layers.archive_size(layer.chain_id)
        uploader = target.uploader
        upload = await uploader.begin()
        done = size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal done
            async with contextlib.aclosing(self._layers.archive(layer.chain_id)) as chunks:
                async for chunk in chunks:
                    done += len(chunk)
                    target.progress.numbers(name, "Pushing", done, total)
                    yield chunk

        hashing = Hashing()
        try:
            async with contextlib.aclosing(through_thread(hashing.compressed, counted())) as packed:
                async for piece in _pieces(packed, _PIECE):
                    await uploader.send(upload, piece)
                    size += len(piece)
            await uploader.commit(upload, hashing.digest)
        except BaseException:
            with contextlib.suppress(RegistryError):  # the registry forgets it by itself in time
                await uploader.cancel(upload)
            raise
        target.progress.state(name, "Pushed")
        return Descriptor(media_type=DOCKER_KIND.layer_like(""), digest=hashing.digest, size=size)


class Hashing:
    """gzip whose bytes depend on nothing but the content, and their digest."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def compressed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        for chunk in chunks:
            yield self._noted(packer.compress(chunk))
        yield self._noted(packer.flush())

    def _noted(self, data: bytes) -> bytes:
        self._hash.update(data)
        return data


async def _pieces(chunks: AsyncGenerator[bytes, None], size: int) -> AsyncIterator[bytes]:
    """Joined to ``size`` bytes or a little more."""
    held: list[bytes] = []
    length = 0
    async for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length >= size:
            yield b"".join(held)
            held.clear()
            length = 0
    if held:
        yield b"".join(held)


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; the first failure ends the others, and waits for them."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _usable(known: KnownManifest, image: StoredImage) -> Manifest | None:
    """The remembered manifest as a value, if it is one of this image."""
    try:
        manifest = parse_manifest(known.data, known.media_type)
    except BadContent:
        return None
    if not isinstance(manifest, Manifest) or manifest.config.digest != image.id:
        return None
    return manifest if len(manifest.layers) == len(image.layers) else None


def _shown(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest}
