"""``/containers/{name}/checkpoints``: dockerd's experimental endpoints, with its words."""

from __future__ import annotations

import re

from engine.containers import status
from engine.containers.lifecycle import event_attributes
from engine.containers.model import Text, WireModel
from engine.context import Engine
from engine.http import Conflict, Forbidden, InternalError, Request, Response, Router, empty, json_response
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]

_CHARACTERS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(f"{_CHARACTERS}+")
_LONGEST = 64
_SINCE = (1, 25)


class CheckpointCreate(WireModel):
    CheckpointID: Text = ""
    CheckpointDir: Text = ""
    Exit: bool = False


def register(router: Router, engine: Engine) -> None:
    port = engine.port

    async def create(request: Request) -> Response:
        wanted = await request.model(CheckpointCreate)
        _no_directory(wanted.CheckpointDir)
        reference = request.match["name"]
        container = await engine.containers.find(reference)
        name = wanted.CheckpointID
        if not status.is_running(container.state):
            raise Conflict(f"container {container.handle.id} is not running")
        if not _NAME.fullmatch(name) or len(name) > _LONGEST:
            raise InternalError(f"Invalid checkpoint ID ({name}), only {_CHARACTERS} are allowed")
        checkpoint = pb.CheckpointRequest(id=container.handle.id, name=name, leave_running=not wanted.Exit)
        try:
            await port.call(port.containers.Checkpoint, checkpoint, timeout=None)
        except PortLayerError as error:
            words = f"Cannot checkpoint container {reference}: {error.message}"
            if error.reason == pb.NAME_IN_USE:
                words = f"checkpoint with name {name} already exists for container {reference}"
                raise InternalError(words) from error
            raise PortLayerError(words, status=error.status, reason=error.reason) from error
        engine.events.publish(
            "container", "checkpoint", container.handle.id, event_attributes(engine, container.handle)
        )
        return empty(201)

    async def names(request: Request) -> Response:
        _no_directory(request.query.text("dir"))
        container = await engine.containers.find(request.match["name"])
        reply = await port.call(
            port.containers.Checkpoints, pb.ContainerRef(id=container.handle.id), idempotent=True
        )
        return json_response([{"Name": name} for name in reply.names])

    async def delete(request: Request) -> Response:
        _no_directory(request.query.text("dir"))
        reference, name = request.match["name"], request.match["checkpoint"]
        container = await engine.containers.find(reference)
        try:
            await port.call(
                port.containers.RemoveCheckpoint, pb.CheckpointRequest(id=container.handle.id, name=name)
            )
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_CHECKPOINT:
                raise
            words = f"checkpoint {name} does not exist for container {reference}"
            raise InternalError(words) from error
        return empty()

    router.add("POST", "/containers/{name}/checkpoints", create, since=_SINCE)
    router.add("GET", "/containers/{name}/checkpoints", names, since=_SINCE)
    router.add("DELETE", "/containers/{name}/checkpoints/{checkpoint}", delete, since=_SINCE)


def _no_directory(path: str) -> None:
    if path:
        raise Forbidden("custom checkpointdir is not supported: checkpoints are kept with the container's VM")
