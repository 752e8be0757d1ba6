"""Content digests: ``algorithm:hex``, the only names that can be believed."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from engine.registry.errors import BadContent, InvalidReference

__all__ = ["Hasher", "check_digest", "hasher", "is_image_id", "sha256_digest", "short", "verify"]

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_SHAPE = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([0-9a-f]+)", re.ASCII)


class Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def check_digest(text: str) -> str:
    """The digest unchanged, or InvalidReference."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise InvalidReference("invalid checksum digest format")
    length = _HEX_LENGTH.get(match[1])
    if length is None:
        raise InvalidReference("unsupported digest algorithm")
    if len(match[2]) != length:
        raise InvalidReference("invalid checksum digest length")
    return text


def is_image_id(text: str) -> bool:
    """A whole "sha256:<64 hex>"."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text, re.ASCII) is not None


def hasher(digest: str) -> Hasher:
    """What computes the hash that this (checked) digest names."""
    return hashlib.new(digest.partition(":")[0], usedforsecurity=True)


def sha256_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def verify(data: bytes, digest: str, what: str) -> bytes:
    """The data unchanged, or BadContent: called before anything parses them."""
    hashing = hasher(digest)
    hashing.update(data)
    algorithm = digest.partition(":")[0]
    if f"{algorithm}:{hashing.hexdigest()}" != digest:
        raise BadContent(
            f"{what} failed verification: expected {digest}, got {algorithm}:{hashing.hexdigest()}"
        )
    return data


def short(digest: str) -> str:
    """The 12 hex digits that Docker shows people."""
    return digest.rpartition(":")[2][:12]
