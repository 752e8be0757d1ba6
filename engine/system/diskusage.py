"""``GET /system/df``: what containers, images and volumes occupy."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from engine.containers.listing import add_sizes, networks_by_id
from engine.containers.summary import summary
from engine.context import Engine
from engine.http import BadRequest, Request, Response, Router, json_response
from engine.timestamps import format_ns, parse_ns
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register"]

_NO_BUILDER_SIZE = (1, 42)
_TYPES = ("container", "image", "volume", "build-cache")


def register(router: Router, engine: Engine) -> None:
    async def usage(request: Request) -> Response:
        wanted = request.query.all("type") or list(_TYPES)
        for kind in wanted:
            if kind not in _TYPES:
                raise BadRequest(f"unknown object type: {kind}")
        result: dict[str, Any] = {} if request.version >= _NO_BUILDER_SIZE else {"BuilderSize": 0}
        containers = await engine.containers.list()
        if "image" in wanted:
            result["LayersSize"] = await _layers_size(engine)
            result["Images"] = await _images(engine, containers)
        if "container" in wanted:
            result["Containers"] = await _containers(engine, containers, request.version)
        if "volume" in wanted:
            result["Volumes"] = await _volumes(engine)
        if "build-cache" in wanted:
            result["BuildCache"] = []
        return json_response(result)

    router.add("GET", "/system/df", usage, since=(1, 25))


async def _layers_size(engine: Engine) -> int:
    reply = await engine.port.call(engine.port.layers.List, tether_pb2.Empty(), idempotent=True)
    return sum(layer.size for layer in reply.layers)


async def _images(engine: Engine, containers: list[pb.Container]) -> list[dict[str, Any]]:
    used = Counter(engine.containers.document(item.handle).image_id for item in containers)
    return [
        {
            "Id": image.id,
            "ParentId": "",
            "RepoTags": list(image.repo_tags) or None,
            "RepoDigests": list(image.repo_digests) or None,
            "Created": parse_ns(image.created, time.time_ns(), what="created") // 1_000_000_000,
            "Size": image.size,
            "SharedSize": image.shared_size,
            "Labels": image.config.get("Labels"),
            "Containers": used[image.id],
        }
        for image in await engine.images.list()
    ]


async def _containers(
    engine: Engine, containers: list[pb.Container], version: tuple[int, int]
) -> list[dict[str, Any]]:
    networks = await networks_by_id(engine)
    now = time.time_ns()
    shown = [
        summary(item, engine.containers.document(item.handle), networks, now_ns=now, version=version)
        for item in containers
    ]
    await add_sizes(engine, shown)
    return shown


async def _volumes(engine: Engine) -> list[dict[str, Any]]:
    reply = await engine.port.call(engine.port.volumes.List, tether_pb2.Empty(), idempotent=True)
    return [
        {
            "CreatedAt": format_ns(volume.created_at),
            "Driver": volume.driver or "local",
            "Labels": dict(volume.labels) or None,
            "Mountpoint": volume.path,
            "Name": volume.name,
            "Options": dict(volume.options) or None,
            "Scope": "local",
            "UsageData": {"RefCount": len(volume.users), "Size": volume.used_bytes},
        }
        for volume in reply.volumes
    ]
