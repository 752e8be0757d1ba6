"""``GET /containers/json``: docker ps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.containers.selection import ALLOWED, Selection
from engine.containers.summary import summary
from engine.context import Engine
from engine.filters import Filters
from engine.http import ApiError, NotFound, Request, Response, Router, json_response
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["add_sizes", "networks_by_id", "register"]

SIZES_AT_ONCE = 8


def register(router: Router, engine: Engine) -> None:
    async def listing(request: Request) -> Response:
        filters = Filters.parse(request.query.text("filters"), ALLOWED)
        limit = request.query.integer("limit", -1)
        Selection.check(filters)
        containers = await engine.containers.list()
        networks = await networks_by_id(engine)
        selection = Selection(
            filters=filters,
            all=request.query.flag("all") or limit > 0 or bool(filters["status"]),
            images=await _ancestors(engine, filters),
            before=_moment(containers, filters, "before"),
            since=_moment(containers, filters, "since"),
            exit_codes=Selection.numbers(filters),
            published=Selection.ports(filters, "publish"),
            exposed=Selection.ports(filters, "expose"),
            networks=networks,
        )
        containers.sort(key=lambda item: item.handle.spec.created_at, reverse=True)
        now = time.time_ns()
        result: list[dict[str, Any]] = []
        for container in containers:
            document = engine.containers.document(container.handle)
            if selection.wants(container, document):
                result.append(summary(container, document, networks, now_ns=now, version=request.version))
                if len(result) == limit:
                    break
        if request.query.flag("size"):
            await add_sizes(engine, result)
        return json_response(result)

    router.add("GET", "/containers/json", listing)


async def networks_by_id(engine: Engine) -> dict[str, pb.Network]:
    reply = await engine.port.call(engine.port.networks.List, tether_pb2.Empty(), idempotent=True)
    return {network.id: network for network in reply.networks}


async def add_sizes(engine: Engine, containers: list[dict[str, Any]]) -> None:
    """SizeRw and SizeRootFs, asked of the port layer a few at a time."""
    gate = asyncio.Semaphore(SIZES_AT_ONCE)

    async def add(entry: dict[str, Any]) -> None:
        async with gate:
            try:
                size = await engine.port.call(engine.port.containers.Size, pb.ContainerRef(id=entry["Id"]))
            except PortLayerError as error:
                if error.reason != pb.NO_SUCH_CONTAINER:  # removed meanwhile: listed, without a size
                    raise
                return
        entry["SizeRw"], entry["SizeRootFs"] = size.rw_bytes, size.root_bytes

    await asyncio.gather(*(add(entry) for entry in containers))


async def _ancestors(engine: Engine, filters: Filters) -> set[str] | None:
    if not filters["ancestor"]:
        return None
    images: set[str] = set()
    for reference in filters["ancestor"]:
        try:
            images.add((await engine.images.resolve(reference)).id)
        except ApiError as error:
            if error.status not in (400, 404):  # an unknown image has no containers
                raise
    return images


def _moment(containers: list[pb.Container], filters: Filters, name: str) -> int:
    """The creation time of the container that `before` or `since` names."""
    for reference in filters[name]:
        bare = reference.removeprefix("/")
        for container in containers:
            if bare and (container.handle.spec.name == bare or container.handle.id.startswith(bare)):
                return container.handle.spec.created_at
        raise NotFound(f"No such container: {reference}")
    return 0
