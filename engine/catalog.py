"""What the rest of the engine asks of the image room.

:mod:`engine.images` implements :class:`ImageCatalog`; containers, system and
events see images only through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["ImageCatalog", "ImageRecord"]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    id: str  # "sha256:…" of the image configuration
    layer: str  # chain ID of the top layer; "" = no layer at all
    config: Mapping[str, Any] = field(default_factory=dict)  # the "config" object of the image: Env, Cmd, …
    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    repo_tags: Sequence[str] = ()  # "name:tag", familiar form
    repo_digests: Sequence[str] = ()  # "name@sha256:…"
    created: str = ""  # RFC 3339
    size: int = 0  # bytes of all its layers
    shared_size: int = 0  # of them in layers that other images have too


class ImageCatalog(Protocol):
    async def resolve(self, reference: str) -> ImageRecord:
        """By name[:tag], name@digest, ID or unique ID prefix. NotFound("No such image: …") otherwise."""

    async def list(self) -> list[ImageRecord]:
        """All images, tagged or not."""

    async def tidy(self) -> None:
        """Called whenever the port layer has come (back): remove what was left half done."""
        ...
