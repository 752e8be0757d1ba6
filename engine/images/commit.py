"""``POST /commit``: an image from a container, stopped or running."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from engine.containers import status
from engine.containers.config import Config
from engine.containers.imageconfig import overlay
from engine.containers.lifecycle import event_attributes
from engine.context import Engine
from engine.http import Conflict, Request, Response, Router, json_response, validated
from engine.images.changes import apply_changes
from engine.images.exchange import new_name
from engine.images.making import NewImage
from engine.images.service import ImageService
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["exported_changes", "register", "shown_config"]


def register(router: Router, engine: Engine, service: ImageService) -> None:
    async def commit(request: Request) -> Response:
        query = request.query
        body = await request.json(optional=True)
        name = new_name(query.text("repo"), query.text("tag")) if query.text("repo") else None
        container = await engine.containers.find(query.text("container"))
        handle = container.handle
        word = status.state_name(container.state)
        if word == "dead":
            raise Conflict(f"You cannot commit container {handle.id} which is Dead")
        if word == "removing":
            raise Conflict(f"You cannot commit container {handle.id} which is being removed")
        document = engine.containers.document(handle)
        base = document.full_config()
        user = validated(Config, body) if body else base
        config = Config.model_validate(apply_changes(query.all("changes"), user.kept()))
        _, image = await service.find(document.image_id)
        comment = query.text("comment")
        made = await service.maker.make(
            NewImage(
                parent=image,
                platform=image.config.platform,
                config=shown_config(overlay(config, base.kept())),
                created_by=" ".join(base.Cmd or ()),
                author=query.text("author"),
                comment=comment,
                container=handle.id,
                container_config=shown_config(base),
            ),
            exported_changes(engine.port, handle.id, pause=query.flag("pause", default=True)),
            [name] if name is not None else [],
        )
        service.published("create", made)
        if name is not None:
            service.publish("tag", made.id, name.familiar, made)
        attributes = {
            **event_attributes(engine, handle),
            "comment": comment,
            "imageID": made.id,
            "imageRef": name.familiar if name is not None else "",
        }
        engine.events.publish("container", "commit", handle.id, attributes)
        return json_response({"Id": made.id}, 201)

    router.add("POST", "/commit", commit)


async def exported_changes(port: PortLayer, container: str, *, pause: bool) -> AsyncGenerator[bytes, None]:
    """What the container has changed, as a layer's archive."""
    request = pb.ExportChangesRequest(id=container, pause=pause)
    chunks = port.stream(port.containers.ExportChanges, request)
    async with contextlib.aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk.data
        except PortLayerError as error:
            if error.reason == pb.PAUSED:
                raise Conflict(
                    f"cannot commit container {container}: it is paused, "
                    "and its guest still holds what it has not written: unpause it first"
                ) from error
            raise


def shown_config(config: Config) -> dict[str, Any]:
    """As it stands in an image: everything that is not at its default."""
    return config.kept()
