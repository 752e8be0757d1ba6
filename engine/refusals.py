"""Docker's endpoints that are not here: each refused by name, swarm's with dockerd's own words."""

from __future__ import annotations

from engine.build.options import BUILDKIT
from engine.filters import Filters
from engine.http import NotFound, Request, Response, Router, Unavailable, json_response

__all__ = ["register"]

_NOT_A_MANAGER = (
    "This node is not a swarm manager. "
    'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)
_SWARM = (
    ("GET", "/nodes"),
    ("GET DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/tasks/{id}/logs"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET DELETE", "/secrets/{id}"),
    ("POST", "/secrets/{id}/update"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET DELETE", "/configs/{id}"),
    ("POST", "/configs/{id}/update"),
    ("GET", "/swarm"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/update"),
    ("POST", "/swarm/unlock"),
)
_PLUGIN_FILTERS = ("capability", "enabled")
_ABSENT = (
    ("POST", "/swarm/init", "docker swarm init: swarm mode is not supported"),
    ("POST", "/swarm/join", "docker swarm join: swarm mode is not supported"),
    ("POST", "/session", BUILDKIT),
    ("POST", "/grpc", BUILDKIT),
    ("POST", "/plugins/pull", "plugins are not supported"),
    ("GET", "/plugins/privileges", "plugins are not supported"),
    ("POST", "/plugins/create", "plugins are not supported"),
    ("POST", "/containers/{name}/copy", "docker cp through /copy ended with API 1.20: use /archive"),
    ("GET", "/debug/{rest...}", "debug endpoints are not supported"),
)


def register(router: Router) -> None:
    """Register last: what another module serves wins."""

    async def no_swarm(request: Request) -> Response:
        raise Unavailable(_NOT_A_MANAGER)

    async def not_in_a_swarm(request: Request) -> Response:
        raise Unavailable("This node is not part of a swarm")

    async def no_plugins(request: Request) -> Response:
        Filters.parse(request.query.text("filters"), _PLUGIN_FILTERS)
        return json_response([])

    async def no_such_plugin(request: Request) -> Response:
        raise NotFound(f'plugin "{request.match["name"]}" not found')  # `docker inspect NAME` asks here too

    for methods, pattern in _SWARM:
        for method in methods.split():
            router.add(method, pattern, no_swarm)
    router.add("POST", "/swarm/leave", not_in_a_swarm)
    router.add("GET", "/plugins", no_plugins)
    router.add("GET", "/plugins/{name...}/json", no_such_plugin)
    router.add("DELETE", "/plugins/{name...}", no_such_plugin)
    for verb in ("enable", "disable", "upgrade", "push", "set"):
        router.add("POST", f"/plugins/{{name...}}/{verb}", no_such_plugin)
    for methods, pattern, message in _ABSENT:
        router.refuse(methods, pattern, message)
