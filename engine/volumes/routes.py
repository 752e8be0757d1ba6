"""Docker's API of volumes."""

from __future__ import annotations

from collections.abc import Sequence

from engine.context import Engine
from engine.filters import Filters
from engine.http import ApiError, Conflict, NotFound, Request, Response, Router, empty, json_response
from engine.rpc import PortLayer, PortLayerError
from engine.volumes.model import ANONYMOUS, CreateVolume, as_json, selected, wanted_volume
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register"]

_LIST_FILTERS = ("dangling", "driver", "label", "name")
_PRUNE_FILTERS = ("all", "label", "label!")
_ANONYMOUS_ONLY_SINCE = (1, 42)  # before, prune took named volumes, too


def register(router: Router, engine: Engine) -> None:
    routes = _Routes(engine)
    router.add("GET", "/volumes", routes.volumes)
    router.add("POST", "/volumes/create", routes.create)
    router.add("POST", "/volumes/prune", routes.prune, since=(1, 25))
    router.add("GET", "/volumes/{name...}", routes.inspect)
    router.add("DELETE", "/volumes/{name...}", routes.remove)
    router.refuse("PUT", "/volumes/{name...}", "cluster volumes are not supported: this is no swarm")


class _Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _port(self) -> PortLayer:
        return self._engine.port

    async def _list(self) -> Sequence[pb.Volume]:
        reply = await self._port.call(self._port.volumes.List, tether_pb2.Empty(), idempotent=True)
        return reply.volumes

    async def volumes(self, request: Request) -> Response:
        """GET /volumes"""
        filters = Filters.parse(request.query.text("filters"), _LIST_FILTERS)
        found = selected(await self._list(), filters)
        return json_response({"Volumes": [as_json(volume) for volume in found], "Warnings": None})

    async def create(self, request: Request) -> Response:
        """POST /volumes/create: a name that is there already is no error when the driver is the same"""
        wanted = wanted_volume(await request.model(CreateVolume, optional=True))
        try:
            volume = await self._port.call(self._port.volumes.Create, wanted, idempotent=True)
        except PortLayerError as error:
            raise ApiError(f"create {wanted.name}: {error.message}", status=error.status) from error
        if (volume.driver or wanted.driver) != wanted.driver:
            raise Conflict(
                f"create {wanted.name}: conflict: volume name must be unique: "
                f"it exists with the driver {volume.driver}"
            )
        return json_response(as_json(volume), 201)

    async def inspect(self, request: Request) -> Response:
        """GET /volumes/{name}"""
        volume = await self._get(request.match["name"])
        return json_response(as_json(volume, status=True))

    async def _get(self, name: str) -> pb.Volume:
        try:
            return await self._port.call(self._port.volumes.Get, pb.VolumeRef(name=name), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_VOLUME:
                raise
            raise NotFound(f"get {name}: no such volume") from error

    async def remove(self, request: Request) -> Response:
        """DELETE /volumes/{name}"""
        name, force = request.match["name"], request.query.flag("force")
        try:
            await self._port.call(self._port.volumes.Remove, pb.RemoveVolumeRequest(name=name, force=force))
        except PortLayerError as error:
            if error.reason == pb.NO_SUCH_VOLUME:
                if force:
                    return empty()
                raise NotFound(f"get {name}: no such volume") from error
            if error.reason == pb.VOLUME_IN_USE:
                users = ", ".join((await self._get(name)).users)
                raise Conflict(f"remove {name}: volume is in use - [{users}]") from error
            raise
        return empty()

    async def prune(self, request: Request) -> Response:
        """POST /volumes/prune: unused ones; those with a name only when asked for"""
        filters = Filters.parse(request.query.text("filters"), _PRUNE_FILTERS)
        named = filters.boolean("all")
        if named is None:
            named = request.version < _ANONYMOUS_ONLY_SINCE
        removed: list[str] = []
        freed = 0
        for volume in await self._list():
            anonymous = volume.anonymous or ANONYMOUS in volume.labels
            if volume.users or not (named or anonymous):
                continue
            if not filters.labels(volume.labels) or filters.excluded_by_labels(volume.labels):
                continue
            try:
                used = (await self._get(volume.name)).used_bytes
                await self._port.call(self._port.volumes.Remove, pb.RemoveVolumeRequest(name=volume.name))
            except NotFound:
                continue  # somebody else was faster
            except PortLayerError as error:
                if error.reason in (pb.VOLUME_IN_USE, pb.NO_SUCH_VOLUME):
                    continue
                raise
            removed.append(volume.name)
            freed += used
        self._engine.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return json_response({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})
