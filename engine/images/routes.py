"""Docker's API of images: what is here, and what it is called. `exchange` has what comes from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from engine.filters import Filters
from engine.http import BadRequest, Request, Response, Router, Unsupported, empty, json_response
from engine.images import exchange, search
from engine.images.index import ImageIndex, StoredImage
from engine.images.references import matches, pattern
from engine.images.removal import Removal, User
from engine.images.service import ImageService
from engine.images.views import created_ns, history, inspect, summary
from engine.rpc import PortLayerError
from engine.timestamps import parse_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]

_LIST_FILTERS = ("before", "dangling", "label", "label!", "reference", "since", "until")
_PRUNE_FILTERS = ("dangling", "label", "label!", "until")


def register(router: Router, service: ImageService) -> None:
    routes = _Routes(service)
    router.add("GET", "/images/json", routes.images)
    router.add("POST", "/images/prune", routes.prune)
    exchange.register(router, service)
    search.register(router, service)
    router.add("GET", "/images/{name...}/json", routes.inspect)
    router.add("GET", "/images/{name...}/history", routes.history)
    router.add("POST", "/images/{name...}/tag", routes.tag)
    router.add("DELETE", "/images/{name...}", routes.remove)


class _Routes:
    def __init__(self, service: ImageService) -> None:
        self._service = service

    async def images(self, request: Request) -> Response:
        """GET /images/json"""
        query = request.query
        text = query.text("filters")
        filters = Filters.parse(text, _LIST_FILTERS)
        old = query.text("filter")
        if old and request.version >= (1, 41):
            raise BadRequest(
                'the query parameter filter is not supported any more: use filters={"reference":…}'
            )
        if query.flag("manifests") and request.version >= (1, 47):
            raise Unsupported("listing an image's manifests is not supported: only one platform is kept")
        index = await self._service.catalog.index()
        patterns = [pattern(item) for item in (*filters["reference"], *([old] if old else []))]
        counts = index.layers() if query.flag("shared-size") else None
        rows = []
        parents = set() if query.flag("all") else {image.parent for image in index}
        for image in _selected(index, filters, list(index)):
            if image.id in parents and not index.references(image.id):
                continue  # a step on the way to another image
            tags, digests = index.tags(image.id), index.digests(image.id)
            if patterns:
                tags = [name for name in tags if any(matches(item, name) for item in patterns)]
                digests = [name for name in digests if any(matches(item, name) for item in patterns)]
                if not tags and not digests:
                    continue
            shared = -1
            if counts is not None:
                shared = sum(layer.size for layer in image.layers if counts[layer.chain_id] > 1)
            rows.append(
                summary(
                    image,
                    version=request.version,
                    tags=[name.familiar for name in tags],
                    digests=[name.familiar for name in digests],
                    shared_size=shared,
                )
            )
        rows.sort(key=lambda row: row["Created"], reverse=True)
        return json_response(rows)

    async def inspect(self, request: Request) -> Response:
        """GET /images/{name}/json"""
        if request.query.flag("manifests") and request.version >= (1, 48):
            raise Unsupported("inspecting an image's manifests is not supported: only one platform is kept")
        index, image = await self._service.find(request.match["name"])
        _check_platform(request, image)
        return json_response(inspect(index, image, version=request.version, disk=await self._disk(image)))

    async def _disk(self, image: StoredImage) -> str:
        if not image.top:
            return ""
        port = self._service.port
        try:
            return (await port.call(port.layers.Get, pb.LayerRef(chain_id=image.top), idempotent=True)).path
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_LAYER:
                raise
            return ""  # lost from the disk: the next pull brings it back

    async def history(self, request: Request) -> Response:
        """GET /images/{name}/history"""
        index, image = await self._service.find(request.match["name"])
        _check_platform(request, image)
        return json_response(history(index, image))

    async def tag(self, request: Request) -> Response:
        """POST /images/{name}/tag"""
        repository, tag = request.query.text("repo"), request.query.text("tag")
        await self._service.tag(request.match["name"], exchange.new_name(repository, tag))
        return empty(201)

    async def remove(self, request: Request) -> Response:
        """DELETE /images/{name}"""
        if request.query.all("platforms"):
            raise Unsupported("removing single platforms of an image is not supported: only one is kept")
        service = self._service
        prune = not request.query.flag("noprune")
        async with service.catalog.changing:
            index = await service.catalog.index()
            users = await service.users()
            removal = Removal(service.catalog, index, users, service.published, prune=prune)
            await removal.remove(request.match["name"], force=request.query.flag("force"))
            await service.catalog.sweep()
        return json_response([record.as_json() for record in removal.records])

    async def prune(self, request: Request) -> Response:
        """POST /images/prune"""
        filters = Filters.parse(request.query.text("filters"), _PRUNE_FILTERS)
        only_dangling = filters.boolean("dangling") is not False
        service = self._service
        records: list[dict[str, str]] = []
        freed = 0
        async with service.catalog.changing:
            index = await service.catalog.index()
            users = await service.users()
            before = {layer.chain_id: layer.size for image in index for layer in image.layers}
            for image in self._prunable(index, filters, users, only_dangling=only_dangling):
                if index.get(image.id) is None or index.children(image.id):
                    continue  # gone with its child, or needed by one that stays
                removal = Removal(service.catalog, index, users, service.published)
                while index.get(image.id) is not None:  # each turn takes a name, the last one the image
                    names = index.references(image.id)
                    await removal.remove(str(names[0]) if names else image.id, force=False)
                records.extend(record.as_json() for record in removal.records)
            freed = sum(before.get(record.get("Deleted", ""), 0) for record in records)
            await service.catalog.sweep()
        service.events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return json_response({"ImagesDeleted": records or None, "SpaceReclaimed": freed})

    @staticmethod
    def _prunable(
        index: ImageIndex,
        filters: Filters,
        users: Mapping[str, Sequence[User]],
        *,
        only_dangling: bool,
    ) -> list[StoredImage]:
        # children before their parents
        candidates = sorted(_filtered(index, filters, list(index)), key=created_ns, reverse=True)
        return [
            image
            for image in candidates
            if not users.get(image.id) and not (only_dangling and index.tags(image.id))
        ]


def _selected(index: ImageIndex, filters: Filters, images: list[StoredImage]) -> list[StoredImage]:
    """What the list's filters leave, names aside."""
    dangling = filters.boolean("dangling")
    found = _filtered(index, filters, images)
    if dangling is True:
        return [image for image in found if not index.tags(image.id) and not index.children(image.id)]
    if dangling is False:
        return [image for image in found if index.references(image.id)]
    return found


def _filtered(index: ImageIndex, filters: Filters, images: list[StoredImage]) -> list[StoredImage]:
    now = time.time_ns()
    before = [created_ns(index.resolve(name)) for name in filters["before"]]
    since = [created_ns(index.resolve(name)) for name in filters["since"]]
    until = [parse_ns(text, now, what="filter 'until'") for text in filters["until"]]
    if len(until) > 1:
        raise BadRequest("more than one until filter specified")
    found = []
    for image in images:
        created = created_ns(image)
        if any(created >= limit for limit in before + until) or any(created <= limit for limit in since):
            continue
        if filters.labels(image.config.labels) and not filters.excluded_by_labels(image.config.labels):
            found.append(image)
    return found


def _check_platform(request: Request, image: StoredImage) -> None:
    """`platform` on inspect and history: JSON, and there is only one to offer."""
    wanted = exchange.json_platform(request.query.text("platform"))
    if wanted is not None and not image.config.platform.matches(wanted):
        raise exchange.platform_mismatch(request.match["name"], wanted, image.config.platform)
