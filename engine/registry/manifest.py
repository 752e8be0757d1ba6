"""Manifests, indexes and image configurations, as parsed and checked values.

Callers verify the digest of a document before they parse it here; what is malformed, ambiguous
(both an index and a manifest, or labelled as the other) or of a kind no container can run from
is BadContent, with the reason. Nothing but BadContent is raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.registry.digest import check_digest
from engine.registry.errors import BadContent, InvalidReference
from engine.registry.platform import Platform

__all__ = [
    "ACCEPT",
    "CONFIG_LIMIT",
    "DOCKER_KIND",
    "MANIFEST_LIMIT",
    "OCI_KIND",
    "Descriptor",
    "Index",
    "IndexEntry",
    "Kind",
    "Manifest",
    "load_json",
    "parse_manifest",
]

MANIFEST_LIMIT = 4 << 20
CONFIG_LIMIT = 1 << 20  # tens of kilobytes are usual; all of them are listed at start
_LAYER_LIMIT = 127
_ENTRY_LIMIT = 1000

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
_CONFIGS = (
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.config.v1+json",
)
_LAYERS = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
)
_MANIFESTS = (_DOCKER_MANIFEST, _OCI_MANIFEST)
_INDEXES = (_DOCKER_LIST, _OCI_INDEX)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one of the two families names things."""

    manifest: str
    config: str
    layers: tuple[str, str, str]  # plain, gzip, zstd

    def layer_like(self, media_type: str) -> str:
        """The family's name for a layer of the other's; gzip when nothing is said."""
        if media_type.endswith("zstd"):
            return self.layers[2]
        return self.layers[0] if media_type.endswith(".tar") else self.layers[1]


DOCKER_KIND = Kind(manifest=_DOCKER_MANIFEST, config=_CONFIGS[0], layers=(_LAYERS[0], _LAYERS[1], _LAYERS[2]))
OCI_KIND = Kind(manifest=_OCI_MANIFEST, config=_CONFIGS[1], layers=(_LAYERS[3], _LAYERS[4], _LAYERS[5]))
# Schema 1 is asked for so that an old image is refused by its name, not as "not found".
ACCEPT = ", ".join((_OCI_INDEX, _DOCKER_LIST, _OCI_MANIFEST, _DOCKER_MANIFEST, f"{_SCHEMA1[0]};q=0.1"))


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    descriptor: Descriptor
    platform: Platform | None
    annotations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Index:
    media_type: str
    entries: tuple[IndexEntry, ...]


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object, or BadContent; the parser's depth errors included."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadContent(f"{what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadContent(f"{what} is not a JSON object")
    return value


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """``media_type`` is what the transport or a descriptor called it; "" when nobody said."""
    raw = load_json(data, "the manifest")
    labelled = media_type.partition(";")[0].strip().lower()
    inside = raw.get("mediaType", "")
    if not isinstance(inside, str):
        raise BadContent("the manifest's mediaType is not a string")
    if labelled in _SCHEMA1 or inside in _SCHEMA1 or raw.get("schemaVersion") == 1:
        raise BadContent(
            "Docker image manifest version 2, schema 1 is not supported: "
            "push the image again with a current client"
        )
    if raw.get("schemaVersion") != 2:
        raise BadContent(f"unsupported manifest schema version {raw.get('schemaVersion')!r:.40}")
    known = _MANIFESTS + _INDEXES
    if inside and inside not in known:
        raise BadContent(f"unsupported manifest media type {inside[:100]!r}")
    if labelled in known and inside and inside != labelled:
        raise BadContent(f"the manifest calls itself {inside} but was delivered as {labelled}")
    kind = inside or (labelled if labelled in known else "")
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        raise BadContent("the manifest is ambiguous: it has both layers and manifests")
    if kind in _INDEXES or (not kind and "manifests" in raw):
        return Index(media_type=kind or _OCI_INDEX, entries=_entries(raw))
    return _manifest(raw, kind or _OCI_MANIFEST)


def _manifest(raw: dict[str, Any], media_type: str) -> Manifest:
    config = _descriptor(raw.get("config"), "config")
    if config.media_type not in _CONFIGS:
        raise BadContent(f"not a container image: its config is of type {config.media_type[:100]!r}")
    if config.size > CONFIG_LIMIT:
        raise BadContent(f"the image configuration is larger than {CONFIG_LIMIT} bytes")
    layers = raw.get("layers")
    if not isinstance(layers, list):
        raise BadContent("the manifest has no layers")
    if len(layers) > _LAYER_LIMIT:
        raise BadContent(
            f"max depth exceeded: the image has {len(layers)} layers, {_LAYER_LIMIT} are the limit"
        )
    parsed = tuple(_descriptor(layer, f"layer {number}") for number, layer in enumerate(layers))
    for layer in parsed:
        if layer.media_type not in _LAYERS:
            raise BadContent(f"unsupported layer media type {layer.media_type[:100]!r}")
    return Manifest(media_type=media_type, config=config, layers=parsed)


def _entries(raw: dict[str, Any]) -> tuple[IndexEntry, ...]:
    manifests = raw.get("manifests")
    if not isinstance(manifests, list):
        raise BadContent("the index has no manifests")
    if len(manifests) > _ENTRY_LIMIT:
        raise BadContent(f"the index has more than {_ENTRY_LIMIT} manifests")
    entries = []
    for number, item in enumerate(manifests):
        descriptor = _descriptor(item, f"manifest {number}")
        platform = item.get("platform")
        entries.append(
            IndexEntry(
                descriptor=descriptor,
                platform=None if platform is None else _platform(platform),
                annotations=_strings(item.get("annotations")),
            )
        )
    return tuple(entries)


def _descriptor(raw: Any, what: str) -> Descriptor:
    if not isinstance(raw, dict):
        raise BadContent(f"the manifest's {what} is not a descriptor")
    media_type, digest, size = raw.get("mediaType"), raw.get("digest"), raw.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise BadContent(f"the manifest's {what} has no media type or no digest")
    if type(size) is not int or not 0 <= size < 1 << 48:
        raise BadContent(f"the manifest's {what} has no valid size")
    try:
        check_digest(digest)
    except InvalidReference as error:
        raise BadContent(f"the manifest's {what}: {error}") from error
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _platform(raw: Any) -> Platform:
    fields: Sequence[Any] = ()
    if isinstance(raw, dict):
        fields = [
            raw.get("os", ""),
            raw.get("architecture", ""),
            raw.get("variant", ""),
            raw.get("os.version", ""),
        ]
    if not fields or not all(isinstance(value, str) and len(value) < 256 for value in fields):
        raise BadContent("the index has a malformed platform")
    return Platform(os=fields[0], architecture=fields[1], variant=fields[2], os_version=fields[3])


def _strings(raw: Any) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise BadContent("the index has malformed annotations")
    return raw
