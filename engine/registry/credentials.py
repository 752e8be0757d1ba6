"""The user's credentials for one registry, as `X-Registry-Auth` and `POST /auth` carry them.

They belong to the registry that the user named: :meth:`Credentials.belong_to` is asked before
anything is sent anywhere.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from engine.registry.errors import InvalidReference
from engine.registry.reference import DEFAULT_DOMAIN

__all__ = ["Credentials", "credentials_from", "parse_registry_auth", "registry_domain"]

_LIMIT = 64 << 10
_HUB = ("index.docker.io", "registry-1.docker.io", "hub.docker.com", "docker.com")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server: str = ""  # the registry's domain; "" = the registry of the call they came with

    def belong_to(self, domain: str) -> bool:
        return self.server in ("", domain)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


def registry_domain(server: str) -> str:
    """The domain behind a server address: "https://index.docker.io/v1/" is docker.io."""
    host = urlsplit(server).netloc if "://" in server else server.partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB else host.rpartition("@")[2]


def parse_registry_auth(header: str) -> Credentials:
    """The header is base64url of JSON; an empty header or object means nobody."""
    if not header:
        return Credentials()
    if len(header) > _LIMIT:
        raise InvalidReference("X-Registry-Auth is too long")
    text = header.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        raw = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise InvalidReference(f"invalid X-Registry-Auth header: {error}") from error
    return credentials_from(raw)


def credentials_from(raw: Any) -> Credentials:
    """From Docker's AuthConfig object, whose keys' case is not important."""
    if not isinstance(raw, dict):
        raise InvalidReference("invalid X-Registry-Auth header: not an object")
    fields = {str(key).lower(): value for key, value in raw.items()}

    def text(key: str) -> str:
        value = fields.get(key) or ""
        if not isinstance(value, str):
            raise InvalidReference(f"invalid X-Registry-Auth header: {key} is not a string")
        return value

    username, password = text("username"), text("password")
    if not username and text("auth"):
        try:
            decoded = base64.b64decode(text("auth"), validate=True).decode()
        except ValueError as error:
            raise InvalidReference(f"invalid X-Registry-Auth header: auth: {error}") from error
        username, _, password = decoded.partition(":")
    try:
        server = registry_domain(text("serveraddress"))
    except ValueError as error:
        raise InvalidReference(f"invalid X-Registry-Auth header: serveraddress: {error}") from error
    return Credentials(
        username=username,
        password=password.rstrip("\0"),
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
        server=server,
    )
