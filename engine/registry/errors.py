"""What a registry, or the way to it, did wrong.

::

    RegistryError
    ├── InvalidReference    the caller's words are not a reference
    ├── RegistryForbidden   this VCH's own configuration refuses the registry
    ├── RegistryUnreachable no answer, or the connection broke: trying again may help
    ├── RegistryRefused     the registry answered with an error (status, code, message)
    └── BadContent          the registry's answer is malformed, too large, or fails its digest
"""

from __future__ import annotations

__all__ = [
    "BadContent",
    "InvalidReference",
    "RegistryError",
    "RegistryForbidden",
    "RegistryRefused",
    "RegistryUnreachable",
]


class RegistryError(Exception):
    """The message is fit for an end user and names the registry, image or blob."""


class InvalidReference(RegistryError):
    """Not a reference or digest by Docker's grammar."""


class RegistryForbidden(RegistryError):
    """The VCH's `registry.allowed` list does not have this registry."""


class RegistryUnreachable(RegistryError):
    """The network failed, not the registry: a retry may succeed."""


class RegistryRefused(RegistryError):
    """An error document of the distribution API, or a bare HTTP status.

    ``code`` is the API's word ("MANIFEST_UNKNOWN"), "" where the answer had none.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        words = code.lower().replace("_", " ")
        super().__init__(f"{words}: {message}" if words else message)
        self.status = status
        self.code = code

    @property
    def not_found(self) -> bool:
        return self.status == 404 or self.code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN")

    @property
    def transient(self) -> bool:
        return self.status in (408, 429) or self.status >= 500


class BadContent(RegistryError):
    """Never retried: the bytes are wrong, and the registry would send the same again."""
