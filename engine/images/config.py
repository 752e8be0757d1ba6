"""The image configuration: the document whose SHA-256 is the image's ID.

Only what the engine needs is checked; the bytes are kept as they came, because the ID stands on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.registry.digest import is_image_id, sha256_digest
from engine.registry.errors import BadContent
from engine.registry.manifest import CONFIG_LIMIT, load_json
from engine.registry.platform import Platform

__all__ = ["History", "ImageConfig", "chain_ids", "parse_config"]

_HISTORY_LIMIT = 5000


@dataclass(frozen=True, kw_only=True)
class History:
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    id: str
    data: bytes
    platform: Platform
    created: str
    author: str
    comment: str
    docker_version: str
    config: Mapping[str, Any]  # Env, Cmd, Labels, …
    diff_ids: tuple[str, ...]
    history: tuple[History, ...]

    @property
    def labels(self) -> Mapping[str, str]:
        labels = self.config.get("Labels") or {}
        return {key: value for key, value in labels.items() if isinstance(value, str)}


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The name of each layer together with all below it (OCI image specification, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            chain.append(f"sha256:{hashlib.sha256(f'{chain[-1]} {diff_id}'.encode()).hexdigest()}")
        else:
            chain.append(diff_id)
    return tuple(chain)


def parse_config(data: bytes) -> ImageConfig:
    """BadContent when this is not the configuration of a container image."""
    if len(data) > CONFIG_LIMIT:
        raise BadContent(f"the image configuration is larger than {CONFIG_LIMIT} bytes")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise BadContent(f"the image configuration is not UTF-8: {error}") from error
    raw = load_json(data, "the image configuration")
    rootfs = raw.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type", "layers") != "layers":
        raise BadContent("the image configuration has no rootfs of type layers")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or not all(isinstance(i, str) and is_image_id(i) for i in diff_ids):
        raise BadContent("the image configuration has malformed diff_ids")
    config = raw.get("config") or {}
    if not isinstance(config, dict) or not isinstance(config.get("Labels") or {}, dict):
        raise BadContent("the image configuration's config is malformed")
    return ImageConfig(
        id=sha256_digest(data),
        data=data,
        platform=Platform(
            os=_text(raw, "os") or "linux",
            architecture=_text(raw, "architecture") or "amd64",
            variant=_text(raw, "variant"),
            os_version=_text(raw, "os.version"),
        ),
        created=_text(raw, "created"),
        author=_text(raw, "author"),
        comment=_text(raw, "comment"),
        docker_version=_text(raw, "docker_version"),
        config=config,
        diff_ids=tuple(diff_ids),
        history=_history(raw.get("history")),
    )


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadContent(f"the image configuration's {key} is not a string")
    return value


def _history(raw: Any) -> tuple[History, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) > _HISTORY_LIMIT or not all(isinstance(i, dict) for i in raw):
        raise BadContent("the image configuration's history is malformed")
    return tuple(
        History(
            created=_text(item, "created"),
            created_by=_text(item, "created_by"),
            author=_text(item, "author"),
            comment=_text(item, "comment"),
            empty_layer=item.get("empty_layer") is True,
        )
        for item in raw
    )
