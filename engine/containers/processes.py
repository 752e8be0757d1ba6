"""``GET /containers/{name}/top`` and ``/changes``."""

from __future__ import annotations

from engine.containers import status
from engine.containers.lifecycle import event_attributes
from engine.containers.pscolumns import parse_ps_args, table
from engine.context import Engine
from engine.http import Conflict, Request, Response, Router, json_response
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]


def register(router: Router, engine: Engine) -> None:
    async def top(request: Request) -> Response:
        columns = parse_ps_args(request.query.text("ps_args") or "-ef")
        container = await engine.containers.find(request.match["name"])
        name = status.state_name(container.state)
        if name == "restarting":
            raise Conflict(
                f"Container {container.handle.id} is restarting, wait until the container is running"
            )
        if name not in ("running", "paused"):
            raise Conflict(f"container {container.handle.id} is not running")
        reply = await engine.port.call(
            engine.port.containers.Top, pb.ContainerRef(id=container.handle.id), timeout=30
        )
        engine.events.publish(
            "container", "top", container.handle.id, event_attributes(engine, container.handle)
        )
        return json_response(
            {"Titles": [column.title for column in columns], "Processes": table(columns, reply.processes)}
        )

    async def changes(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        reply = await engine.port.call(
            engine.port.containers.Diff, pb.ContainerRef(id=container.handle.id), timeout=None
        )
        found = [
            {"Path": entry.path.decode("utf-8", "replace"), "Kind": int(entry.kind)}
            for entry in reply.entries
        ]
        return json_response(found or None)

    router.add("GET", "/containers/{name}/top", top)
    router.add("GET", "/containers/{name}/changes", changes)
