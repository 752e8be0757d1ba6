"""API version negotiation: which versions we serve, and the texts of refusal."""

from __future__ import annotations

import re

from engine.http.errors import BadRequest

__all__ = ["LATEST", "OLDEST", "negotiate", "version_text"]

OLDEST = (1, 21)
LATEST = (1, 50)

_PREFIX = re.compile(r"/v([0-9]{1,4})\.([0-9]{1,4})(?=/|$)")


def version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def negotiate(path: str) -> tuple[tuple[int, int], str]:
    """Split ``/v1.41/containers/json`` into its version and ``/containers/json``.

    Without a prefix the latest version is meant.
    """
    found = _PREFIX.match(path)
    if not found:
        return LATEST, path
    version = (int(found[1]), int(found[2]))
    if version > LATEST:
        raise BadRequest(
            f"client version {version_text(version)} is too new. "
            f"Maximum supported API version is {version_text(LATEST)}"
        )
    if version < OLDEST:
        raise BadRequest(
            f"client version {version_text(version)} is too old. "
            f"Minimum supported API version is {version_text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    return version, path[found.end() :] or "/"
