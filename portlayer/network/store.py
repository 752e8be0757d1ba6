"""The networks of a VCH on disk: ``networks/<id>.json``, one file each.

A network exists when its file does. Files are written under a temporary name,
fsynced and renamed, so one is whole or not there; open() sweeps temporaries.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf import json_format

from portlayer.portlayer_pb2 import Network

__all__ = ["NetworkStore", "StoreError"]

_TEMPORARY = ".new-"
_FILE_CAP = 4 << 20


class StoreError(Exception):
    """A network's file cannot be read; the message names it."""


class NetworkStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def load(self) -> list[Network]:
        """Every network, oldest first."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        networks = []
        for path in sorted(self._root.iterdir()):
            if path.name.startswith(_TEMPORARY):
                path.unlink()
            elif path.suffix == ".json":
                networks.append(self._read(path))
        return sorted(networks, key=lambda n: (not n.builtin, n.created_at, n.id))

    def _read(self, path: Path) -> Network:
        if path.stat().st_size > _FILE_CAP:
            raise StoreError(f"{path}: larger than {_FILE_CAP} bytes")
        try:
            network = json_format.Parse(path.read_text(), Network())
        except (ValueError, json_format.ParseError) as error:
            raise StoreError(f"{path}: {error}") from error
        if network.id != path.stem:
            raise StoreError(f"{path}: holds the network {network.id!r}")
        return network

    def save(self, network: Network) -> None:
        """Raises OSError: then there is what was there before."""
        stored = Network()
        stored.CopyFrom(network)
        del stored.endpoints[:]  # they follow from the containers
        temporary = self._root / f"{_TEMPORARY}{network.id}"
        try:
            with temporary.open("w") as file:
                file.write(json_format.MessageToJson(stored, preserving_proto_field_name=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._root / f"{network.id}.json")
        except OSError:  # a full disk: leave no half of a file on it
            temporary.unlink(missing_ok=True)
            raise
        self._sync()

    def delete(self, network_id: str) -> None:
        """Idempotent."""
        (self._root / f"{network_id}.json").unlink(missing_ok=True)
        self._sync()

    def _sync(self) -> None:
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
