"""Platforms: what an image runs on, and which entry of an index is the one wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine.registry.errors import InvalidReference

__all__ = ["DEFAULT_PLATFORM", "Platform", "choose", "parse_platform"]


@dataclass(frozen=True, kw_only=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, wanted: Platform) -> bool:
        """Whether an image of this platform is what was asked for; an unsaid variant is any."""
        mine, theirs = _normalised(self), _normalised(wanted)
        if (mine.os, mine.architecture) != (theirs.os, theirs.architecture):
            return False
        return not theirs.variant or mine.variant in ("", theirs.variant)


DEFAULT_PLATFORM = Platform(os="linux", architecture="amd64")

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
# The variant everybody has, usually left out
_BASE_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def parse_platform(text: str) -> Platform:
    """``os[/architecture[/variant]]`` or a bare architecture, as `--platform` takes it."""
    parts = text.split("/")
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise InvalidReference(f'"{text[:100]}": invalid platform: expected os[/architecture[/variant]]')
    parts = [part.lower() for part in parts]
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "freebsd", "darwin"):
            return Platform(os=parts[0], architecture=DEFAULT_PLATFORM.architecture)
        return _normalised(Platform(os="linux", architecture=parts[0]))
    return _normalised(Platform(os=parts[0], architecture=parts[1], variant="".join(parts[2:])))


def _normalised(platform: Platform) -> Platform:
    architecture, variant = _ARCHITECTURES.get(
        platform.architecture.lower(), (platform.architecture.lower(), platform.variant)
    )
    variant = platform.variant or variant
    if variant == _BASE_VARIANT.get(architecture):
        variant = ""
    return Platform(os=platform.os.lower(), architecture=architecture, variant=variant)


class _Entry(Protocol):
    @property
    def platform(self) -> Platform | None: ...


E = TypeVar("E", bound=_Entry)


def choose(entries: Iterable[E], wanted: Platform) -> E | None:
    """The best entry: the same variant, then the base variant, then one that does not say its platform."""
    unsaid = base = None
    for entry in entries:
        if entry.platform is None:
            unsaid = unsaid or entry
        elif entry.platform.matches(wanted):
            if _normalised(entry.platform).variant == _normalised(wanted).variant:
                return entry
            base = base or (entry if not _normalised(entry.platform).variant else None)
    return base or unsaid
