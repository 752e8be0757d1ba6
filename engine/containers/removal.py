"""``DELETE /containers/{name}``, ``POST /containers/prune``, and removal of ``--rm`` containers.

A container's anonymous volumes go after it, also when we are killed in between
(:mod:`engine.containers.anonymous`).
"""

from __future__ import annotations

import logging
import time

from engine.containers import status
from engine.context import Engine
from engine.filters import Filters
from engine.http import BadRequest, Conflict, Request, Response, Router, empty, json_response
from engine.rpc import PortLayerError
from engine.timestamps import parse_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["register", "remove", "remove_quietly"]

logger = logging.getLogger(__name__)

_PRUNE_FILTERS = frozenset(("label", "label!", "until"))


def register(router: Router, engine: Engine) -> None:
    async def delete(request: Request) -> Response:
        name = request.match["name"]
        if request.query.flag("link"):
            raise BadRequest("removing a link is not supported: links end with their container")
        container = await engine.containers.find(name)
        force = request.query.flag("force")
        if not force:
            _removable(container, name)
        try:
            await remove(engine, container.handle, force=force, volumes=request.query.flag("v"))
        except PortLayerError as error:
            if error.reason == pb.REMOVAL_IN_PROGRESS:
                raise Conflict(f"removal of container {name} is already in progress") from error
            raise
        return empty()

    async def prune(request: Request) -> Response:
        filters = Filters.parse(request.query.text("filters"), _PRUNE_FILTERS)
        if len(filters["until"]) > 1:
            raise BadRequest("more than one until filter specified")
        now = time.time_ns()
        until = parse_ns(filters["until"][0], now, what="until") if filters["until"] else 0
        deleted: list[str] = []
        reclaimed = 0
        for container in await engine.containers.list():
            document = engine.containers.document(container.handle)
            if (
                status.state_name(container.state) not in ("created", "exited", "dead")
                or container.state.status == pb.ContainerState.STARTING
                or (until and container.handle.spec.created_at >= until)
                or not filters.labels(document.labels)
                or filters.excluded_by_labels(document.labels)
            ):
                continue
            size = await _prune_one(engine, container.handle)
            if size is not None:
                deleted.append(container.handle.id)
                reclaimed += size
        engine.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})

    router.add("DELETE", "/containers/{name}", delete)
    router.add("POST", "/containers/prune", prune, since=(1, 25))


def _removable(container: pb.Container, name: str) -> None:
    if not status.is_running(container.state):
        return
    if status.state_name(container.state) == "paused":
        reason = "container is paused and must be unpaused first"
    else:
        word = status.state_name(container.state)
        reason = f"container is {word}: stop the container before removing or force remove"
    raise Conflict(f'cannot remove container "{name}": {reason}')


async def _prune_one(engine: Engine, handle: pb.Handle) -> int | None:
    """The bytes won, or ``None`` when it was not removed (started or removed meanwhile)."""
    try:
        size = await engine.port.call(engine.port.containers.Size, pb.ContainerRef(id=handle.id))
        await remove(engine, handle, force=False, volumes=False)
    except PortLayerError as error:
        if error.status not in (404, 409):
            raise
        logger.info("prune leaves container %s: %s", handle.id[:12], error)
        return None
    return size.rw_bytes


async def remove(engine: Engine, handle: pb.Handle, *, force: bool, volumes: bool) -> None:
    """Remove the container and, with ``volumes``, the anonymous volumes only it used."""
    attached = [mount.volume for mount in handle.spec.mounts] if volumes else []
    async with engine.anonymous.of(handle.id, attached):
        await engine.port.call(
            engine.port.containers.Remove, pb.RemoveContainerRequest(id=handle.id, force=force)
        )
        engine.containers.forget(handle.id)


async def remove_quietly(engine: Engine, handle: pb.Handle) -> None:
    """For ``--rm``: nobody waits for the outcome; what fails is tried again at the next start."""
    try:
        await remove(engine, handle, force=True, volumes=True)
    except PortLayerError as error:
        if error.reason not in (pb.NO_SUCH_CONTAINER, pb.REMOVAL_IN_PROGRESS):
            logger.warning("container %s (--rm) was not removed: %s", handle.id[:12], error)
