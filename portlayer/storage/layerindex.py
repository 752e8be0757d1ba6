"""Layers as their documents on disk describe them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LayerInfo", "StoredLayer", "decode_layer", "layer_directory", "read_layers"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    chain_id: str
    parent: str  # chain ID; "" = none
    diff_id: str
    size: int  # bytes of file content in the layer's archive
    archive_size: int  # bytes of the archive; 0: it cannot be made again (stored by an earlier version)
    disk_bytes: int  # of the layer's own disk on this host
    path: Path  # the disk to stand on: the parent's when the layer is empty
    empty: bool
    labels: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """What the store itself must know about a layer."""

    info: LayerInfo
    depth: int  # disks from the template to this layer's, inclusive


def layer_directory(root: Path, chain_id: str) -> Path:
    return root / chain_id.removeprefix("sha256:")


def decode_layer(
    document: dict[str, Any], root: Path, layers: Mapping[str, StoredLayer], base: Path
) -> StoredLayer:
    """A layer whose parent is in ``layers``."""
    chain_id, parent, empty = document["chain_id"], document["parent"], document["empty"]
    path = layer_directory(root, chain_id) / "disk.vmdk"
    disk_bytes = 0
    if empty:
        path = layers[parent].info.path if parent else base
    else:
        disk_bytes = path.stat().st_blocks * 512
    info = LayerInfo(
        chain_id=chain_id,
        parent=parent,
        diff_id=document["diff_id"],
        size=document["size"],
        archive_size=document.get("archive_size", 0),
        disk_bytes=disk_bytes,
        path=path,
        empty=empty,
        labels=document["labels"],
    )
    return StoredLayer(info=info, depth=document["depth"])


def read_layers(root: Path, base: Path) -> dict[str, StoredLayer]:
    """All layers that are whole and have all their parents; the others are reported and left out."""
    documents = {}
    for path in root.iterdir():
        if path.name.startswith((".", "base-")):
            continue
        try:
            document = json.loads((path / "layer.json").read_text())
            if not document["empty"] and not (path / "disk.vmdk").exists():
                raise FileNotFoundError(path / "disk.vmdk")
            documents[str(document["chain_id"])] = document
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.error("layer %s is damaged and left out: %r", path, error)
    layers: dict[str, StoredLayer] = {}
    for chain_id in documents:
        line = _line_of_parents(chain_id, documents, layers)
        for known in reversed(line):
            layers[known] = decode_layer(documents[known], root, layers, base)
    return layers


def _line_of_parents(
    chain_id: str, documents: dict[str, dict[str, Any]], layers: Mapping[str, StoredLayer]
) -> list[str]:
    """``chain_id`` and its parents that are not in ``layers`` yet; nothing when one is missing."""
    line: list[str] = []
    while chain_id and chain_id not in layers:
        if chain_id not in documents or chain_id in line:
            _log.error("layers %s are left out: their parent %s is missing", line, chain_id)
            return []
        line.append(chain_id)
        chain_id = documents[chain_id]["parent"]
    return line
