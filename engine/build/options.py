"""What ``POST /build`` asks for: checked, and refused by name where it cannot be had."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.containers.hostconfig import HostConfig
from engine.http import BadRequest, Query, Unsupported, validated
from engine.images.exchange import new_name
from engine.registry.errors import InvalidReference
from engine.registry.platform import Platform, parse_platform
from engine.registry.reference import Reference

__all__ = ["BUILDKIT", "BuildOptions", "parse_options"]

BUILDKIT = (
    "BuildKit is not part of this virtual container host's own API: build with DOCKER_BUILDKIT=0, "
    "or run BuildKit in a container: docker buildx create --driver docker-container --use"
)
_TAGS_LIMIT = 100
_ITEMS_LIMIT = 1000


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    names: tuple[Reference, ...]
    dockerfile: str
    remote: str
    quiet: bool
    use_cache: bool
    cache_from: tuple[str, ...]
    pull: bool
    remove: bool
    force_remove: bool
    arguments: Mapping[str, str | None]
    labels: Mapping[str, str]
    target: str
    platform: Platform | None
    host: HostConfig


def parse_options(query: Query) -> BuildOptions:
    if query.text("version") == "2":
        raise Unsupported(BUILDKIT)
    if query.text("version") not in ("", "1"):
        raise BadRequest(f"invalid version {query.text('version')[:20]}")
    if query.text("session") or query.text("remote") == "client-session":
        raise Unsupported(f"build sessions need BuildKit. {BUILDKIT}")
    if query.flag("squash"):
        raise BadRequest("squash is only supported with experimental mode")
    if query.text("outputs"):
        raise Unsupported(f"build outputs need BuildKit. {BUILDKIT}")
    if query.text("isolation") not in ("", "default"):
        raise BadRequest(f"unsupported isolation: {query.text('isolation')[:100]!r}")
    return BuildOptions(
        names=_names(query.all("t")),
        dockerfile=query.text("dockerfile") or "Dockerfile",
        remote=query.text("remote"),
        quiet=query.flag("q"),
        use_cache=not query.flag("nocache"),
        cache_from=tuple(_texts(query, "cachefrom")),
        pull=query.flag("pull"),
        remove=query.flag("rm", default=True),
        force_remove=query.flag("forcerm"),
        arguments=_map(query, "buildargs", optional=True),
        labels={key: value or "" for key, value in _map(query, "labels").items()},
        target=query.text("target"),
        platform=_platform(query.text("platform")),
        host=_host(query),
    )


def _names(texts: list[str]) -> tuple[Reference, ...]:
    """In the order given, each once."""
    if len(texts) > _TAGS_LIMIT:
        raise BadRequest(f"more than {_TAGS_LIMIT} tags")
    return tuple(dict.fromkeys(new_name(text, "") for text in texts if text))


def _platform(text: str) -> Platform | None:
    try:
        return parse_platform(text) if text else None
    except InvalidReference as error:
        raise BadRequest(str(error)) from error


def _json(query: Query, name: str) -> Any:
    text = query.text(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"error reading {name}: {error}") from error


def _map(query: Query, name: str, *, optional: bool = False) -> dict[str, Any]:
    raw = _json(query, name)
    if raw is None:
        return {}
    kinds = (str, type(None)) if optional else (str,)
    if (
        not isinstance(raw, dict)
        or len(raw) > _ITEMS_LIMIT
        or not all(isinstance(value, kinds) for value in raw.values())
    ):
        raise BadRequest(f"error reading {name}: a JSON object of strings is wanted")
    return raw


def _texts(query: Query, name: str) -> list[str]:
    raw = _json(query, name)
    if raw is None:
        return []
    if not isinstance(raw, list) or len(raw) > _ITEMS_LIMIT or not all(isinstance(i, str) for i in raw):
        raise BadRequest(f"error reading {name}: a JSON list of strings is wanted")
    return raw


def _host(query: Query) -> HostConfig:
    """How the containers of RUN are made. Their output goes to the client and nowhere else."""
    ulimits = _json(query, "ulimits") or []
    wanted: dict[str, Any] = {
        "Memory": query.integer("memory"),
        "MemorySwap": query.integer("memswap"),
        "CpuShares": query.integer("cpushares"),
        "CpuPeriod": query.integer("cpuperiod"),
        "CpuQuota": query.integer("cpuquota"),
        "CpusetCpus": query.text("cpusetcpus"),
        "CpusetMems": query.text("cpusetmems"),
        "CgroupParent": query.text("cgroupparent"),
        "ShmSize": query.integer("shmsize"),
        "NetworkMode": query.text("networkmode") or "default",
        "ExtraHosts": [item for text in query.all("extrahosts") for item in _listed(text)],
        "SecurityOpt": query.all("securityopt"),
        "Ulimits": ulimits,
        "LogConfig": {"Type": "none"},
    }
    return validated(HostConfig, wanted)


def _listed(text: str) -> list[str]:
    """Clients send hosts one by one, or all of them with commas."""
    return [item for item in re.split(r",", text) if item]
