"""The personality's documents: small values under path-like keys, one file each.

A file's name is the percent-encoded key (or its digest when that is too long
for a file name); the key, the version and the value are inside. Versions grow
for ever, also over deletion and restart: they are taken from the clock, so a
compare-and-set never mistakes a new document for an old one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import urllib.parse
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import durable
from portlayer.storage.failures import translated

__all__ = ["KeyValueStore"]

MAX_KEY = 1024  # characters
MAX_VALUE = 16 << 20  # bytes
MAX_KEYS = 100_000
_LONGEST_FILE_NAME = 200
_log = logging.getLogger(__name__)


class KeyValueStore:
    """Synchronous: a value is a few kilobytes. Every method raises ``PortLayerError``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions: dict[str, int] = {}
        self._last_version = 0

    def open(self) -> None:
        """Sweep and read what is there. What is no document of ours is reported and left out."""
        with translated(f"key-value store {self._root}", place=self._root.parent):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.sweep(self._root)
            self._versions = {}
            for path in self._root.iterdir():
                with path.open("rb") as file:
                    head = file.readline(8 * MAX_KEY)
                try:
                    document = json.loads(head)
                    self._versions[document["key"]] = document["version"]
                except (ValueError, KeyError, TypeError) as error:
                    _log.error("document %s is damaged and left out: %r", path, error)
            self._last_version = max(self._versions.values(), default=0)

    def put(self, key: str, value: bytes, version: int = 0) -> int:
        """Store a value, if ``version`` is its present one (0 = in any case); returns the new version.

        Raises:
            PortLayerError: VERSION_CONFLICT, NO_SUCH_KEY (a version of what is not there),
                LIMIT_EXCEEDED, NO_SPACE
        """
        path = self._path(key)
        if len(value) > MAX_VALUE:
            raise PortLayerError(
                Reason.LIMIT_EXCEEDED, f"the value of {key!r} is larger than {MAX_VALUE} bytes"
            )
        present = self._versions.get(key)
        if version:
            if present is None:
                raise self._missing(key)
            if present != version:
                message = f"{key!r} was changed by somebody else (version {present}, not {version})"
                raise PortLayerError(Reason.VERSION_CONFLICT, message)
        elif present is None and len(self._versions) >= MAX_KEYS:
            raise PortLayerError(Reason.LIMIT_EXCEEDED, f"more than {MAX_KEYS} documents")
        new = max(self._last_version + 1, time.time_ns())
        head = json.dumps({"key": key, "version": new}).encode() + b"\n"
        with translated(f"document {key!r}", place=self._root):
            durable.write_file(path, head + value)
        self._last_version = self._versions[key] = new
        return new

    def get(self, key: str) -> tuple[bytes, int]:
        """(value, version)

        Raises:
            PortLayerError: NO_SUCH_KEY
        """
        path = self._path(key)
        if key not in self._versions:
            raise self._missing(key)
        with translated(f"document {key!r}", place=self._root), path.open("rb") as file:
            file.readline()
            return file.read(), self._versions[key]

    def list(self, prefix: str) -> dict[str, tuple[bytes, int]]:
        return {key: self.get(key) for key in sorted(self._versions) if key.startswith(prefix)}

    def delete(self, key: str) -> None:
        """
        Raises:
            PortLayerError: NO_SUCH_KEY
        """
        path = self._path(key)
        if key not in self._versions:
            raise self._missing(key)
        with translated(f"document {key!r}", place=self._root):
            path.unlink()
            durable.sync_directory(self._root)
        del self._versions[key]

    def _path(self, key: str) -> Path:
        if not key or len(key) > MAX_KEY:
            raise PortLayerError(Reason.LIMIT_EXCEEDED, f"a key has 1 to {MAX_KEY} characters")
        # "~" is safe in quote(), so no quoted key can look like a digest's name
        name = urllib.parse.quote(key, safe="", errors="surrogatepass").replace("~", "%7E")
        if len(name) > _LONGEST_FILE_NAME or name.startswith("."):
            name = "~" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._root / name

    def _missing(self, key: str) -> PortLayerError:
        return PortLayerError(Reason.NO_SUCH_KEY, f"no such key: {key[:200]!r}")
