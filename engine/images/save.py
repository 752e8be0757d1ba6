"""`docker save`: images as one archive, an OCI layout with docker's own index beside it.

The bytes depend on the images and their names alone: every layer is the archive it came as, times
come from the images. Saved, loaded and saved again is the same file.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.http import BadRequest, InternalError, NotFound
from engine.images.index import ImageIndex, StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.views import created_ns
from engine.registry.digest import is_image_id, sha256_digest
from engine.registry.errors import InvalidReference
from engine.registry.manifest import OCI_KIND
from engine.registry.reference import Reference, parse_reference

__all__ = ["SavedImage", "archive", "choose"]

_BLOCK = 512
_RECORD = 20 * _BLOCK  # what a whole tar's size is a multiple of
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, kw_only=True)
class SavedImage:
    image: StoredImage
    names: tuple[Reference, ...]


def choose(index: ImageIndex, wanted: Sequence[str]) -> list[SavedImage]:
    """What the names stand for: a repository alone means all its tags, an ID no name at all."""
    found: dict[str, list[Reference]] = {}
    for text in wanted:
        for image_id, name in _named(index, text):
            names = found.setdefault(image_id, [])
            if name is not None and name not in names:
                names.append(name)
    images = []
    for image_id, names in found.items():
        image = index.get(image_id)
        assert image is not None, "names in the index are of images in the index"
        images.append(SavedImage(image=image, names=tuple(names)))
    return images


def _named(index: ImageIndex, text: str) -> list[tuple[str, Reference | None]]:
    if is_image_id(text) or is_image_id(f"sha256:{text}"):
        return [(index.resolve(text).id, None)]
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        raise BadRequest(str(error)) from error
    if not reference.tag and not reference.digest:
        tags = [name for image in index for name in index.tags(image.id) if name.name_only == reference]
        if tags:
            return [(index.named(name), name) for name in sorted(tags, key=str)]
    named = index.named(reference.with_digest(reference.digest) if reference.digest else reference.tagged)
    if named:
        return [(named, reference.tagged if not reference.digest else None)]
    matches = index.with_prefix(text)
    if len(matches) != 1:
        raise NotFound("reference does not exist")
    return [(matches[0].id, None)]


async def archive(images: Sequence[SavedImage], layers: LayerPool) -> AsyncGenerator[bytes, None]:
    """The archive, in pieces. The caller holds the layers."""
    sizes = {
        layer.diff_id: await layers.archive_size(layer.chain_id)
        for saved in images
        for layer in saved.image.layers
    }
    files, blobs = _documents(images, sizes)
    times: dict[str, int] = {}
    content: dict[str, bytes | StoredLayer] = dict(blobs)
    for saved in images:
        seconds = max(created_ns(saved.image) // 1_000_000_000, 0)
        times.setdefault(saved.image.id, seconds)
        for layer in saved.image.layers:
            content.setdefault(layer.diff_id, layer)
            times.setdefault(layer.diff_id, seconds)
    written = 0
    for name in ("blobs", "blobs/sha256"):
        yield _header(name, directory=True)
        written += _BLOCK
    for digest in sorted(content):
        item = content[digest]
        size = sizes[digest] if isinstance(item, StoredLayer) else len(item)
        head = _header(_path(digest), size=size, seconds=times.get(digest, 0))
        yield head
        if isinstance(item, StoredLayer):
            async with contextlib.aclosing(_exactly(layers, item, size)) as chunks:
                async for chunk in chunks:
                    yield chunk
        else:
            yield item
        yield bytes(-size % _BLOCK)
        written += len(head) + size + -size % _BLOCK
    for name in sorted(files):
        data = files[name]
        padded = _header(name, size=len(data)) + data + bytes(-len(data) % _BLOCK)
        yield padded
        written += len(padded)
    yield bytes(2 * _BLOCK + -(written + 2 * _BLOCK) % _RECORD)


async def _exactly(layers: LayerPool, layer: StoredLayer, size: int) -> AsyncGenerator[bytes, None]:
    """The port layer checks the digest; the size was promised in the header."""
    async with contextlib.aclosing(layers.archive(layer.chain_id)) as chunks:
        async for chunk in chunks:
            size -= len(chunk)
            if size < 0:
                break
            yield chunk
    if size:
        raise InternalError(f"layer {layer.diff_id} has another size than it had")


def _documents(
    images: Sequence[SavedImage], sizes: Mapping[str, int]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(files of the top by name, blobs by digest)"""
    blobs: dict[str, bytes] = {}
    manifest: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for saved in images:
        image = saved.image
        sources = {
            layer.diff_id: _descriptor(_LAYER, layer.diff_id, sizes[layer.diff_id]) for layer in image.layers
        }
        document = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_KIND.manifest,
                "config": _descriptor(OCI_KIND.config, image.id, len(image.config.data)),
                "layers": [sources[layer.diff_id] for layer in image.layers],
            },
            separators=(",", ":"),
        ).encode()
        blobs[image.id] = image.config.data
        blobs[sha256_digest(document)] = document
        entry = _descriptor(OCI_KIND.manifest, sha256_digest(document), len(document))
        for name in saved.names:
            annotations = {
                "io.containerd.image.name": str(name),
                "org.opencontainers.image.ref.name": name.tag,
            }
            index.append({**entry, "annotations": annotations})
            if image.layers:
                top = image.layers[-1].diff_id.removeprefix("sha256:")
                repositories.setdefault(name.familiar_name, {})[name.tag] = top
        if not saved.names:
            index.append(entry)
        manifest.append(
            {
                "Config": _path(image.id),
                "RepoTags": [name.familiar for name in saved.names] or None,
                "Layers": [_path(layer.diff_id) for layer in image.layers],
                "LayerSources": dict(sorted(sources.items())),
            }
        )
    files = {
        "manifest.json": _json(manifest) + b"\n",
        "index.json": _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index}),
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
    }
    if repositories:
        files["repositories"] = (
            json.dumps(repositories, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        )
    return files, blobs


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _header(name: str, *, size: int = 0, seconds: int = 0, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = seconds
    info.mode = 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return info.tobuf(tarfile.PAX_FORMAT)
