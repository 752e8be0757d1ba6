"""Docker's names for images: ``[domain/]path[:tag][@digest]``.

A :class:`Reference` is always normalised ("busybox" is docker.io/library/busybox); ``familiar``
gives back the short form that people type and Docker prints. Parsing raises InvalidReference with
Docker's words and nothing else, whatever the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from engine.registry.digest import check_digest
from engine.registry.errors import InvalidReference

__all__ = ["DEFAULT_DOMAIN", "DEFAULT_TAG", "Reference", "parse_name", "parse_reference", "valid_tag"]

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A normalised name, with at most a tag and at most a digest."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def name_only(self) -> Reference:
        return replace(self, tag="", digest="")

    def with_tag(self, tag: str) -> Reference:
        if not valid_tag(tag):
            raise InvalidReference("invalid tag format")
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> Reference:
        return replace(self, tag="", digest=check_digest(digest))

    @property
    def tagged(self) -> Reference:
        """With the default tag when there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def valid_tag(tag: str) -> bool:
    return _TAG.fullmatch(tag) is not None


def parse_reference(text: str) -> Reference:
    """Parse what a user typed."""
    if not text:
        raise InvalidReference("invalid reference format: repository name must have at least one component")
    if len(text) > 1024:
        raise InvalidReference("invalid reference format: reference is too long")
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReference(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest)
    tag = ""
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not valid_tag(tag):
            raise InvalidReference("invalid reference format")
    named = parse_name(rest)
    return replace(named, tag=tag, digest=digest)


def parse_name(text: str) -> Reference:
    """Parse a name that has no tag and no digest."""
    domain, path = _split_domain(text)
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
        raise InvalidReference("invalid reference format")
    if not _DOMAIN.fullmatch(domain):
        raise InvalidReference("invalid reference format")
    if len(path) > _NAME_LIMIT:
        raise InvalidReference(f"repository name must not be more than {_NAME_LIMIT} characters")
    return Reference(domain=domain, path=path)


def _split_domain(text: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host only when it looks like one."""
    first, slash, rest = text.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if slash and looks_like_host:
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, text
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path
