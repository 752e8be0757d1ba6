"""All images and their names, in memory: what a name, digest or short ID means.

No I/O. The catalog loads it at start and changes it only after the change is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.http import BadRequest, NotFound
from engine.images.config import ImageConfig
from engine.registry.digest import is_image_id
from engine.registry.errors import InvalidReference
from engine.registry.reference import Reference, parse_reference

__all__ = ["ImageIndex", "StoredImage", "StoredLayer"]

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    chain_id: str
    diff_id: str
    size: int  # bytes of uncompressed content


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    config: ImageConfig
    layers: tuple[StoredLayer, ...]
    parent: str = ""  # the image it was made from here, by commit or build

    @property
    def id(self) -> str:
        return self.config.id

    @property
    def top(self) -> str:
        """Chain ID of the whole; "" for an image without layers."""
        return self.layers[-1].chain_id if self.layers else ""

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class _Name:
    image: str
    time_ns: int


class ImageIndex:
    def __init__(self) -> None:
        self._images: dict[str, StoredImage] = {}
        self._names: dict[Reference, _Name] = {}
        self._references: dict[str, set[Reference]] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[StoredImage]:
        return iter(list(self._images.values()))

    def get(self, image_id: str) -> StoredImage | None:
        return self._images.get(image_id)

    def add(self, image: StoredImage) -> None:
        self._images[image.id] = image

    def discard(self, image_id: str) -> None:
        """Forget an image whose names are gone already."""
        assert not self._references.get(image_id), "an image is forgotten after its names"
        self._images.pop(image_id, None)
        self._references.pop(image_id, None)

    def name(self, reference: Reference, image_id: str, time_ns: int) -> None:
        """Give a tag or digest name to an image; another image loses it."""
        assert reference.tag or reference.digest, "a name in the index has a tag or a digest"
        self.unname(reference)
        self._names[reference] = _Name(image=image_id, time_ns=time_ns)
        self._references.setdefault(image_id, set()).add(reference)

    def unname(self, reference: Reference) -> None:
        known = self._names.pop(reference, None)
        if known is not None:
            self._references[known.image].discard(reference)

    def named(self, reference: Reference) -> str:
        """The ID of the image with exactly this name, "" if there is none."""
        known = self._names.get(reference)
        return known.image if known else ""

    def references(self, image_id: str) -> list[Reference]:
        """Every name of an image, in a stable order."""
        return sorted(self._references.get(image_id, ()), key=str)

    def tags(self, image_id: str) -> list[Reference]:
        return [reference for reference in self.references(image_id) if reference.tag]

    def digests(self, image_id: str) -> list[Reference]:
        return [reference for reference in self.references(image_id) if reference.digest]

    def last_tagged(self, image_id: str) -> int:
        """Nanoseconds since the epoch, 0 for never."""
        return max((self._names[reference].time_ns for reference in self.tags(image_id)), default=0)

    def resolve(self, text: str) -> StoredImage:
        """By ID, name, or unique ID prefix, in Docker's order. Raises what the client is told."""
        if is_image_id(text) or re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
            image = self._images.get(text if ":" in text else f"sha256:{text}")
            if image is None:
                raise NotFound(f"No such image: {text}")
            return image
        try:
            reference = parse_reference(text).tagged
        except InvalidReference as error:
            raise BadRequest(str(error)) from error
        named = self.named(_exact(reference))
        if named:
            return self._images[named]
        found = self.with_prefix(text)
        if len(found) > 1:
            raise BadRequest(f"ambiguous image ID prefix {text}: {len(found)} images match, use more digits")
        if not found:
            raise NotFound(f"No such image: {reference.familiar}")
        return found[0]

    def children(self, image_id: str) -> list[StoredImage]:
        """Images that were made from this one, here."""
        return [image for image in self._images.values() if image.parent == image_id]

    def with_prefix(self, text: str) -> list[StoredImage]:
        match = _ID_PREFIX.fullmatch(text)
        if match is None:
            return []
        prefix = f"sha256:{match[1]}"
        return [image for image_id, image in self._images.items() if image_id.startswith(prefix)]

    def is_id_prefix(self, image_id: str, text: str) -> bool:
        match = _ID_PREFIX.fullmatch(text)
        return match is not None and image_id.startswith(f"sha256:{match[1]}")

    def layers(self, *, without: Iterable[str] = ()) -> dict[str, int]:
        """How many images stand on each layer, by chain ID."""
        left_out = set(without)
        counts: dict[str, int] = {}
        for image in self._images.values():
            if image.id not in left_out:
                for layer in image.layers:
                    counts[layer.chain_id] = counts.get(layer.chain_id, 0) + 1
        return counts


def _exact(reference: Reference) -> Reference:
    """A digest is the more exact name: the tag beside it says nothing more."""
    return reference.with_digest(reference.digest) if reference.digest else reference
