"""Docker's API of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.containers.networking import endpoint, find_network
from engine.context import Engine
from engine.filters import Filters
from engine.http import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    InternalError,
    Request,
    Response,
    Router,
    empty,
    json_response,
)
from engine.networks.model import PREDEFINED, ConnectRequest, CreateNetwork, DisconnectRequest, wanted_network
from engine.networks.views import as_json, prunable, selected
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register"]

_LIST_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")
_ATTEMPTS = 10  # commits that somebody else was faster with


def register(router: Router, engine: Engine) -> None:
    routes = _Routes(engine)
    router.add("GET", "/networks", routes.networks)
    router.add("POST", "/networks/create", routes.create)
    router.add("POST", "/networks/prune", routes.prune, since=(1, 25))
    router.add("POST", "/networks/{name}/connect", routes.connect)
    router.add("POST", "/networks/{name}/disconnect", routes.disconnect)
    router.add("GET", "/networks/{name}", routes.inspect)
    router.add("DELETE", "/networks/{name}", routes.remove)


class _Routes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._containers = engine.containers

    @property
    def _port(self) -> PortLayer:
        return self._engine.port

    async def _list(self) -> Sequence[pb.Network]:
        reply = await self._port.call(self._port.networks.List, tether_pb2.Empty(), idempotent=True)
        return reply.networks

    async def networks(self, request: Request) -> Response:
        """GET /networks"""
        filters = Filters.parse(request.query.text("filters"), _LIST_FILTERS)
        found = selected(await self._list(), filters)
        rows = [as_json(network, version=request.version, detailed=False) for network in found]
        return json_response(rows)

    async def inspect(self, request: Request) -> Response:
        """GET /networks/{id}; `verbose` tells of swarm's services only, of which there are none"""
        if request.query.text("scope") not in ("", "local"):
            raise ApiError(f"network {request.match['name']} not found", status=404)
        network = find_network(await self._list(), request.match["name"])
        return json_response(as_json(network, version=request.version, detailed=True))

    async def create(self, request: Request) -> Response:
        """POST /networks/create"""
        wanted = wanted_network(await request.model(CreateNetwork))
        try:
            network = await self._port.call(self._port.networks.Create, wanted)
        except PortLayerError as error:
            if error.reason != pb.NAME_IN_USE:
                raise
            raise Conflict(error.message) from error
        return json_response({"Id": network.id, "Warning": ""}, 201)

    async def remove(self, request: Request) -> Response:
        """DELETE /networks/{id}"""
        network = find_network(await self._list(), request.match["name"])
        if network.builtin or network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        await self._port.call(self._port.networks.Remove, pb.NetworkRef(id=network.id))
        return empty()

    async def prune(self, request: Request) -> Response:
        """POST /networks/prune"""
        filters = Filters.parse(request.query.text("filters"), _PRUNE_FILTERS)
        removed: list[str] = []
        for network in prunable(await self._list(), filters):
            try:
                await self._port.call(self._port.networks.Remove, pb.NetworkRef(id=network.id))
            except PortLayerError as error:
                if error.reason not in (pb.NETWORK_IN_USE, pb.NO_SUCH_NETWORK):
                    raise
            else:
                removed.append(network.name)
        self._engine.events.publish("network", "prune", "", {"reclaimed": "0"})
        return json_response({"NetworksDeleted": removed or None})

    async def connect(self, request: Request) -> Response:
        """POST /networks/{id}/connect"""
        body = await request.model(ConnectRequest)
        network = find_network(await self._list(), request.match["name"])
        container = await self._containers.find(body.Container)
        mode = self._containers.document(container.handle).host.get("NetworkMode")
        if network.type == "none" or mode == "none":
            raise Forbidden(
                "container cannot be connected to multiple networks "
                "with one of the networks in private (none) mode"
            )
        targets = {name: (await self._containers.find(name)).handle.id for name in _link_names(body)}
        wanted = endpoint(body.EndpointConfig, network, lambda name: targets[name])

        def change(spec: pb.ContainerSpec) -> None:
            if any(existing.network == network.id for existing in spec.endpoints):
                raise Forbidden(f"endpoint with name {spec.name} already exists in network {network.name}")
            spec.endpoints.append(wanted)

        await self._commit(container.handle.id, change)
        return empty(200)

    async def disconnect(self, request: Request) -> Response:
        """POST /networks/{id}/disconnect; `Force` means containers of other hosts: there are none"""
        body = await request.model(DisconnectRequest)
        network = find_network(await self._list(), request.match["name"])
        container = await self._containers.find(body.Container)

        def change(spec: pb.ContainerSpec) -> None:
            kept = [existing for existing in spec.endpoints if existing.network != network.id]
            if len(kept) == len(spec.endpoints):
                raise InternalError(
                    f"container {container.handle.id} is not connected to network {network.name}"
                )
            del spec.endpoints[:]
            spec.endpoints.extend(kept)

        await self._commit(container.handle.id, change)
        return empty(200)

    async def _commit(self, container: str, change: Callable[[pb.ContainerSpec], None]) -> None:
        """Open, change, commit; again when somebody else committed in between."""
        port = self._port
        for _ in range(_ATTEMPTS):
            handle = await port.call(port.containers.Open, pb.ContainerRef(id=container), idempotent=True)
            change(handle.spec)
            try:
                await port.call(port.containers.Commit, handle)
            except PortLayerError as error:
                if error.reason != pb.VERSION_CONFLICT:
                    raise
                conflict = error
            else:
                return
        raise conflict


def _link_names(body: ConnectRequest) -> list[str]:
    """The containers that the links name, in every spelling that `endpoint` takes."""
    names = [text.partition(":")[0].lstrip("/") for text in body.EndpointConfig.Links]
    if not all(names):
        raise BadRequest(f"bad format for links: {body.EndpointConfig.Links}")
    return names
