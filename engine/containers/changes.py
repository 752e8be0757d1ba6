"""rename and update: changes of an existing container, by handle and commit.

A commit that lost a race (VERSION_CONFLICT) is repeated on a fresh handle.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.containers import names, resources
from engine.containers.create import name_taken
from engine.containers.hostconfig import HostConfig, refuse_fields
from engine.containers.lifecycle import event_attributes
from engine.context import Engine
from engine.http import BadRequest, Conflict, Request, Response, Router, empty, json_response
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["change", "register"]

ATTEMPTS = 5


async def change(engine: Engine, container: str, edit: Callable[[pb.ContainerSpec], None]) -> pb.Handle:
    """Open, ``edit``, commit; again when somebody else committed in between."""
    for attempt in range(ATTEMPTS):
        handle = await engine.port.call(engine.port.containers.Open, pb.ContainerRef(id=container))
        edit(handle.spec)
        try:
            committed = await engine.port.call(engine.port.containers.Commit, handle)
        except PortLayerError as error:
            if error.reason != pb.VERSION_CONFLICT or attempt == ATTEMPTS - 1:
                raise
        else:
            engine.containers.note(committed)
            return committed
    raise AssertionError("the last attempt returns or raises")


def register(router: Router, engine: Engine) -> None:
    async def rename(request: Request) -> Response:
        wanted = request.query.text("name").removeprefix("/")
        if not wanted:
            raise BadRequest("Neither old nor new names may be empty")
        new = names.checked(wanted)
        container = await engine.containers.find(request.match["name"])
        old = container.handle.spec.name
        if new == old:
            raise BadRequest("Renaming a container with the same name as its current name")

        def edit(spec: pb.ContainerSpec) -> None:
            spec.name = new

        try:
            handle = await change(engine, container.handle.id, edit)
        except PortLayerError as error:
            if error.reason != pb.NAME_IN_USE:
                raise
            raise await name_taken(engine, new) from error
        attributes = {**event_attributes(engine, handle), "oldName": f"/{old}"}
        engine.events.publish("container", "rename", handle.id, attributes)
        return empty()

    async def update(request: Request) -> Response:
        wanted = await request.model(HostConfig)
        refuse_fields(wanted)
        container = await engine.containers.find(request.match["name"])
        spec = container.handle.spec
        current = resources.overlay(engine.containers.document(container.handle).full_host(), spec)
        try:
            merged = resources.merge_update(current, wanted)
            if merged.AutoRemove and merged.RestartPolicy.Name not in ("", "no"):
                raise Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container"
                )
        except Conflict as error:
            raise Conflict(f"Cannot update container {container.handle.id}: {error.message}") from error
        resources.validate(merged)
        await engine.port.call(
            engine.port.containers.Update,
            pb.UpdateContainerRequest(
                id=container.handle.id,
                resources=resources.to_resources(merged),
                restart=resources.restart_policy(merged.RestartPolicy),
                set_restart=bool(wanted.RestartPolicy.Name),
            ),
        )
        engine.events.publish(
            "container", "update", container.handle.id, event_attributes(engine, container.handle)
        )
        return json_response({"Warnings": []})

    router.add("POST", "/containers/{name}/rename", rename)
    router.add("POST", "/containers/{name}/update", update)
