"""Pulling an image: manifest, configuration, layers, record, names, in that order.

Whatever fails, or whoever goes away, leaves whole layers at most; those that no image came to need
are removed at the next sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from engine.http import ApiError, BadRequest, Forbidden, InternalError, NotFound
from engine.images.catalog import Catalog
from engine.images.config import ImageConfig, chain_ids, parse_config
from engine.images.index import StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.progress import Progress
from engine.images.provenance import Provenance
from engine.images.transfer import LayerWanted, Transfer, Transfers
from engine.registry.client import Document, RegistryClient
from engine.registry.credentials import Credentials
from engine.registry.digest import short
from engine.registry.errors import (
    BadContent,
    InvalidReference,
    RegistryError,
    RegistryForbidden,
    RegistryRefused,
)
from engine.registry.manifest import CONFIG_LIMIT, Index, Manifest, parse_manifest
from engine.registry.platform import DEFAULT_PLATFORM, Platform, choose
from engine.registry.reference import DEFAULT_DOMAIN, Reference
from engine.registry.sources import Source, host_of, sources
from engine.registry.transport import Transport
from vch.config import Registry

__all__ = ["Puller", "Resolved", "pull_error"]

_NESTING = 3  # an index may name indexes, not without end


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a reference stands for in a registry."""

    top: Document  # what the tag names: an index, or the manifest itself
    document: Document
    manifest: Manifest
    config: ImageConfig


class Puller:
    def __init__(
        self,
        *,
        registry: Registry,
        transport: Transport,
        catalog: Catalog,
        layers: LayerPool,
        transfers: Transfers,
        provenance: Provenance,
    ) -> None:
        self._registry = registry
        self._transport = transport
        self._catalog = catalog
        self._layers = layers
        self._transfers = transfers
        self._provenance = provenance

    async def client(self, reference: Reference, credentials: Credentials) -> RegistryClient:
        return RegistryClient(self._transport, await self.sources(reference), reference.path, credentials)

    async def sources(self, reference: Reference) -> list[Source]:
        """Where to look for it, best first; RegistryForbidden when nowhere."""
        domain = reference.domain
        addresses = await _addresses(domain) if self._needs_addresses(domain) else ()
        return sources(domain, self._registry, addresses)

    def _needs_addresses(self, domain: str) -> bool:
        """Insecure ranges hold for names, too, by what they resolve to."""
        return domain != DEFAULT_DOMAIN and any("/" in entry for entry in self._registry.insecure)

    async def resolve(self, client: RegistryClient, wanted: str, platform: Platform | None) -> Resolved:
        """Manifest and configuration for a tag or digest; the right ones of an index."""
        top = document = await client.manifest(wanted)
        parsed = parse_manifest(document.data, document.media_type)
        for _ in range(_NESTING):
            if isinstance(parsed, Manifest):
                break
            document, parsed = await self._entry(client, parsed, platform or DEFAULT_PLATFORM)
        if isinstance(parsed, Index):
            raise BadContent(f"the index {top.digest} nests more than {_NESTING} deep")
        data = await client.document(parsed.config, CONFIG_LIMIT, "the image configuration")
        config = parse_config(data)
        _check_config(parsed, config, platform)
        return Resolved(top=top, document=document, manifest=parsed, config=config)

    async def _entry(
        self, client: RegistryClient, index: Index, platform: Platform
    ) -> tuple[Document, Manifest | Index]:
        entry = choose(index.entries, platform)
        if entry is None:
            raise NotFound(f"no matching manifest for {platform} in the manifest list entries")
        document = await client.manifest(entry.descriptor.digest)
        return document, parse_manifest(document.data, entry.descriptor.media_type)

    async def pull(
        self,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials,
        progress: Progress,
    ) -> StoredImage:
        """The reference has a tag or a digest. Raises ApiError with what docker would say."""
        try:
            return await self._pull(reference, platform, credentials, progress)
        except RegistryError as error:
            raise pull_error(error, reference) from error

    async def _pull(
        self, reference: Reference, platform: Platform | None, credentials: Credentials, progress: Progress
    ) -> StoredImage:
        client = await self.client(reference, credentials)
        wanted = reference.digest or reference.tag
        resolved = await self.resolve(client, wanted, platform)
        progress.message(f"Pulling from {reference.familiar_name}", wanted)
        chain = chain_ids(resolved.config.diff_ids)
        async with self._layers.hold(chain):
            layers = await self._fetch(client, resolved, chain, progress)
            image = StoredImage(config=resolved.config, layers=tuple(layers))
            by_digest = reference.with_digest(resolved.top.digest)
            names = [by_digest] if reference.digest else [reference, by_digest]
            async with self._catalog.changing:
                index = await self._catalog.index()
                known = all(index.named(name) == image.id for name in names)
                await self._catalog.add(image, [name for name in names if index.named(name) != image.id])
            if not known:
                await self._remember(image, resolved, reference)
        progress.message(f"Digest: {resolved.top.digest}")
        state = "Image is up to date" if known else "Downloaded newer image"
        progress.message(f"Status: {state} for {reference.familiar}")
        return image

    async def _remember(self, image: StoredImage, resolved: Resolved, reference: Reference) -> None:
        """For a push: what this registry calls the image and its layers."""
        document = resolved.document
        await self._provenance.note_manifest(image.id, resolved.manifest.media_type, document.data)
        for layer, blob in zip(image.layers, resolved.manifest.layers, strict=True):
            await self._provenance.note(layer.diff_id, blob, reference)

    async def _fetch(
        self, client: RegistryClient, resolved: Resolved, chain: Sequence[str], progress: Progress
    ) -> list[StoredLayer]:
        """Every layer of the chain in the port layer, downloaded where it was not."""
        present = await self._layers.present()
        blobs = resolved.manifest.layers
        for chain_id, blob in zip(chain, blobs, strict=True):
            progress.state(
                short(blob.digest), "Already exists" if chain_id in present else "Pulling fs layer"
            )
        async with contextlib.AsyncExitStack() as stack:
            parent: Transfer | None = None
            waiting: list[StoredLayer | Transfer] = []
            for number, (chain_id, blob) in enumerate(zip(chain, blobs, strict=True)):
                diff_id = resolved.config.diff_ids[number]
                if chain_id in present:
                    size = present[chain_id].size
                    waiting.append(StoredLayer(chain_id=chain_id, diff_id=diff_id, size=size))
                    continue
                layer = LayerWanted(
                    chain_id=chain_id, parent=chain[number - 1] if number else "", diff_id=diff_id, blob=blob
                )
                parent = self._transfers.join(layer, parent, client, progress)
                stack.push_async_callback(self._transfers.leave, parent, progress)
                waiting.append(parent)
            return [await item.result() if isinstance(item, Transfer) else item for item in waiting]


def _check_config(manifest: Manifest, config: ImageConfig, platform: Platform | None) -> None:
    if config.id != manifest.config.digest:
        raise BadContent("the image configuration must be named by its sha256 digest")
    if len(config.diff_ids) != len(manifest.layers):
        raise BadContent(
            f"the image configuration has {len(config.diff_ids)} diff_ids "
            f"and the manifest {len(manifest.layers)} layers"
        )
    if config.platform.os != DEFAULT_PLATFORM.os:
        raise BadContent(f'image operating system "{config.platform.os}" cannot be used on this platform')
    if platform is not None and not config.platform.matches(platform):
        raise NotFound(
            f"the image does not match the specified platform: wanted {platform}, actual: {config.platform}"
        )


def pull_error(error: RegistryError, reference: Reference) -> ApiError:
    """With the words and the status that dockerd has for it."""
    if isinstance(error, RegistryForbidden):
        return Forbidden(str(error))
    if isinstance(error, InvalidReference):
        return BadRequest(str(error))
    if isinstance(error, RegistryRefused):
        if error.code == "DENIED":
            return NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist or "
                f"may require 'docker login': {error}"
            )
        if error.code == "MANIFEST_UNKNOWN":
            return NotFound(f"manifest for {reference.familiar} not found: {error}")
        if error.code == "NAME_UNKNOWN":
            return NotFound(f"repository {reference.familiar_name} not found: {error}")
    return InternalError(str(error))


async def _addresses(domain: str) -> Sequence[str]:
    """What the registry's host resolves to; nothing when it does not: the connection will say so."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host_of(domain), None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return [str(address[4][0]) for address in found]
