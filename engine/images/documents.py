"""Images and names as the documents that the port layer keeps for us.

``images/<hex>``: the configuration byte for byte with the sizes of its layers. ``tags/<hex>`` and
``digests/<hex>``: one name each, keyed by the hash of the name, so that a key is always short and
plain whatever the name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from engine.images.config import chain_ids, parse_config
from engine.images.index import StoredImage, StoredLayer
from engine.registry.errors import BadContent, InvalidReference
from engine.registry.reference import Reference, parse_reference

__all__ = [
    "DIGESTS",
    "IMAGES",
    "TAGS",
    "BadDocument",
    "NameDocument",
    "decode_image",
    "decode_name",
    "encode_image",
    "encode_name",
    "image_key",
    "name_key",
]

IMAGES = "images/"
TAGS = "tags/"
DIGESTS = "digests/"


class BadDocument(Exception):
    """A stored document cannot be read; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class NameDocument:
    reference: Reference
    image: str
    time_ns: int


def image_key(image_id: str) -> str:
    return IMAGES + image_id.removeprefix("sha256:")


def name_key(reference: Reference) -> str:
    prefix = DIGESTS if reference.digest else TAGS
    return prefix + hashlib.sha256(str(reference).encode()).hexdigest()


def encode_image(image: StoredImage) -> bytes:
    document: dict[str, Any] = {
        "config": image.config.data.decode(),
        "sizes": [layer.size for layer in image.layers],
    }
    if image.parent:
        document["parent"] = image.parent
    return json.dumps(document).encode()


def decode_image(key: str, data: bytes) -> StoredImage:
    raw = _object(key, data)
    text, sizes = raw.get("config"), raw.get("sizes")
    if not isinstance(text, str) or not isinstance(sizes, list):
        raise BadDocument(f"{key}: not an image document")
    try:
        config = parse_config(text.encode())
    except (BadContent, UnicodeEncodeError) as error:
        raise BadDocument(f"{key}: {error}") from error
    if image_key(config.id) != key:
        raise BadDocument(f"{key}: holds the image {config.id}")
    if len(sizes) != len(config.diff_ids) or not all(type(size) is int and size >= 0 for size in sizes):
        raise BadDocument(f"{key}: malformed sizes")
    parent = raw.get("parent", "")
    if not isinstance(parent, str):
        raise BadDocument(f"{key}: malformed parent")
    return StoredImage(
        config=config,
        layers=tuple(
            StoredLayer(chain_id=chain, diff_id=diff, size=size)
            for chain, diff, size in zip(chain_ids(config.diff_ids), config.diff_ids, sizes, strict=True)
        ),
        parent=parent,
    )


def encode_name(document: NameDocument) -> bytes:
    return json.dumps(
        {"reference": str(document.reference), "image": document.image, "time": document.time_ns}
    ).encode()


def decode_name(key: str, data: bytes) -> NameDocument:
    raw = _object(key, data)
    name, image, time_ns = raw.get("reference"), raw.get("image"), raw.get("time")
    if not isinstance(name, str) or not isinstance(image, str) or type(time_ns) is not int:
        raise BadDocument(f"{key}: not a name document")
    try:
        reference = parse_reference(name)
    except InvalidReference as error:
        raise BadDocument(f"{key}: {error}") from error
    if name_key(reference) != key:
        raise BadDocument(f"{key}: holds the name {reference}")
    return NameDocument(reference=reference, image=image, time_ns=time_ns)


def _object(key: str, data: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"{key}: {error}") from error
    if not isinstance(raw, dict):
        raise BadDocument(f"{key}: not an object")
    return raw
