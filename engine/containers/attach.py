"""``POST /containers/{name}/attach``, and the websocket form, which is refused by name."""

from __future__ import annotations

import contextlib

from engine.containers import status
from engine.containers.detachkeys import parse_detach_keys
from engine.containers.lasting import lasting_attach
from engine.containers.lifecycle import event_attributes
from engine.containers.logs import raw_output
from engine.containers.multiplex import hijack_type
from engine.containers.session import End, Options, run_session
from engine.context import Engine
from engine.http import HIJACKED, Conflict, Disconnected, Request, Response, Router, Unsupported
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]


def register(router: Router, engine: Engine) -> None:
    async def attach(request: Request) -> Response:
        query = request.query
        keys = parse_detach_keys(query.text("detachKeys"))
        container = await engine.containers.find(request.match["name"])
        handle = container.handle
        name = status.state_name(container.state)
        if name == "paused":
            raise Conflict(
                f"container {request.match['name']} is paused, unpause the container before attach"
            )
        if name == "restarting":
            raise Conflict(
                f"container {request.match['name']} is restarting, wait until the container is running"
            )
        process = handle.spec.process
        stdin = query.flag("stdin") and process.open_stdin
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        content_type = hijack_type(request, tty=process.tty)
        if query.flag("logs") and not query.flag("stream"):
            await _send_logs(request, engine, handle, content_type, stdout=stdout, stderr=stderr)
            return HIJACKED
        if not query.flag("stream"):
            await request.hijack(content_type)
            return HIJACKED
        open_ = pb.AttachOpen(
            id=handle.id, stdin=stdin, stdout=stdout, stderr=stderr, from_start=query.flag("logs")
        )
        attributes = event_attributes(engine, handle)
        async with lasting_attach(engine.port, open_) as session:
            engine.events.publish("container", "attach", handle.id, attributes)
            duplex = await request.hijack(content_type)
            end = await run_session(
                duplex,
                session,
                Options(tty=process.tty, stdin=stdin, close_stdin=process.stdin_once, detach_keys=keys),
            )
        if end is End.DETACHED:
            engine.events.publish("container", "detach", handle.id, attributes)
        return HIJACKED

    async def websocket(request: Request) -> Response:
        raise Unsupported("attaching by websocket is not supported: use POST /containers/{id}/attach")

    router.add("POST", "/containers/{name}/attach", attach, blocking=True)
    router.add("GET", "/containers/{name}/attach/ws", websocket)


async def _send_logs(
    request: Request, engine: Engine, handle: pb.Handle, content_type: str, *, stdout: bool, stderr: bool
) -> None:
    """``logs=1`` without ``stream=1``: what there is, then the end."""
    output = raw_output(engine, handle, stdout=stdout, stderr=stderr)
    async with contextlib.aclosing(output):
        duplex = await request.hijack(content_type)
        try:
            async for data in output:
                await duplex.write(data)
        except Disconnected:
            return
