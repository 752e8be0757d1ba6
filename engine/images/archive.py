"""What is inside an image archive: `docker save` tars and OCI layouts, as one list of images to load.

Only documents are read here; layers stay where they lie. The formats are told apart by their files:
`manifest.json` is docker's (newer docker writes both, and both say the same), `index.json` OCI's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.images.config import ImageConfig, parse_config
from engine.images.tarindex import Member, Read, TarIndex
from engine.registry.digest import verify
from engine.registry.errors import BadContent, InvalidReference
from engine.registry.manifest import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    IndexEntry,
    Manifest,
    parse_manifest,
)
from engine.registry.platform import DEFAULT_PLATFORM, Platform, choose
from engine.registry.reference import Reference, parse_reference

__all__ = ["ArchivedImage", "ArchivedLayer", "read_archive"]

_IMAGES_LIMIT = 1000
_TAGS_LIMIT = 1000
_NESTING = 3
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, kw_only=True)
class ArchivedLayer:
    member: Member
    digest: str = ""  # of the blob as it lies there, where the archive says


@dataclass(frozen=True, kw_only=True)
class ArchivedImage:
    config: ImageConfig
    layers: tuple[ArchivedLayer, ...]
    names: tuple[Reference, ...]


class _Archive:
    def __init__(self, index: TarIndex, read: Read) -> None:
        self.index = index
        self._read = read

    def document(self, name: str, limit: int) -> bytes:
        member = self.index.find(name)
        if member.size > limit:
            raise BadContent(f"the archive's {name[:200]} is larger than {limit} bytes")
        return self._read(member.offset, member.size)

    def blob(self, descriptor: Descriptor, limit: int) -> bytes:
        data = self.document(blob_name(descriptor.digest), limit)
        return verify(data, descriptor.digest, f"the blob {descriptor.digest}")


def blob_name(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def read_archive(index: TarIndex, read: Read, platform: Platform | None) -> list[ArchivedImage]:
    """The images, layers matched with the configuration's diff IDs one to one."""
    archive = _Archive(index, read)
    if "manifest.json" in index:
        images = _docker(archive)
        if platform is not None:
            images = [image for image in images if image.config.platform.matches(platform)]
    elif "index.json" in index:
        images = _oci(archive, platform)
    else:
        raise BadContent("the archive is no image archive: it has neither manifest.json nor index.json")
    if not images:
        raise BadContent("the archive has no image" + (f" for {platform}" if platform else ""))
    for image in images:
        if len(image.layers) != len(image.config.diff_ids):
            raise BadContent(
                f"invalid archive: the image {image.config.id} has {len(image.config.diff_ids)} diff_ids "
                f"and {len(image.layers)} layers"
            )
        if image.config.platform.os != DEFAULT_PLATFORM.os:
            raise BadContent(f"cannot load {image.config.platform.os} image on {DEFAULT_PLATFORM.os}")
    return images


def _docker(archive: _Archive) -> list[ArchivedImage]:
    try:
        raw = json.loads(archive.document("manifest.json", MANIFEST_LIMIT))
    except (ValueError, RecursionError) as error:
        raise BadContent(f"the archive's manifest.json is not valid JSON: {error}") from error
    if not isinstance(raw, list) or len(raw) > _IMAGES_LIMIT or not all(isinstance(i, dict) for i in raw):
        raise BadContent("the archive's manifest.json is not a list of images")
    return [_docker_image(archive, item) for item in raw]


def _docker_image(archive: _Archive, raw: Mapping[str, Any]) -> ArchivedImage:
    config, layers, tags = raw.get("Config"), raw.get("Layers") or [], raw.get("RepoTags") or []
    if not isinstance(config, str) or not _names(layers) or not _names(tags) or len(tags) > _TAGS_LIMIT:
        raise BadContent("the archive's manifest.json has a malformed image")
    return ArchivedImage(
        config=parse_config(archive.document(config, CONFIG_LIMIT)),
        layers=tuple(ArchivedLayer(member=archive.index.find(layer)) for layer in layers),
        names=tuple(_tag(tag) for tag in tags),
    )


def _names(raw: Any) -> bool:
    return isinstance(raw, list) and all(isinstance(item, str) for item in raw)


def _tag(text: str) -> Reference:
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        raise BadContent(f"the archive names an image {text[:200]!r}: {error}") from error
    if not reference.tag:
        raise BadContent(f"invalid tag {text[:200]!r}")
    return reference.with_tag(reference.tag)


def _oci(archive: _Archive, platform: Platform | None) -> list[ArchivedImage]:
    top = parse_manifest(archive.document("index.json", MANIFEST_LIMIT))
    if not isinstance(top, Index):
        raise BadContent("the archive's index.json is not an index")
    wanted = platform or DEFAULT_PLATFORM
    found: dict[str, ArchivedImage] = {}
    for entry in top.entries:
        if entry.platform is not None and not entry.platform.matches(wanted):
            continue
        image = _oci_image(archive, entry, wanted)
        if image is None:
            continue
        known = found.get(image.config.id)
        names = dict.fromkeys((*(known.names if known else ()), *image.names))
        found[image.config.id] = ArchivedImage(config=image.config, layers=image.layers, names=tuple(names))
    return list(found.values())


def _oci_image(archive: _Archive, entry: IndexEntry, wanted: Platform) -> ArchivedImage | None:
    """None when the archive has nothing for this platform."""
    descriptor = entry.descriptor
    for _ in range(_NESTING):
        parsed = parse_manifest(archive.blob(descriptor, MANIFEST_LIMIT), descriptor.media_type)
        if isinstance(parsed, Manifest):
            config = parse_config(archive.blob(parsed.config, CONFIG_LIMIT))
            if not config.platform.matches(wanted):
                return None
            return ArchivedImage(
                config=config,
                layers=tuple(
                    ArchivedLayer(member=archive.index.find(blob_name(layer.digest)), digest=layer.digest)
                    for layer in parsed.layers
                ),
                names=_annotated(entry.annotations),
            )
        inner = choose(parsed.entries, wanted)
        if inner is None:
            return None
        descriptor = inner.descriptor
    raise BadContent("the archive's index nests too deep")


def _annotated(annotations: Mapping[str, str]) -> tuple[Reference, ...]:
    for key in _NAME_ANNOTATIONS:
        text = annotations.get(key, "")
        if ":" in text or "/" in text:  # a bare word is a tag of a repository that nobody names
            try:
                reference = parse_reference(text).tagged
            except InvalidReference:
                continue
            if reference.tag:
                return (reference.with_tag(reference.tag),)
    return ()
