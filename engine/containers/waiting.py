"""``POST /containers/{name}/wait``: armed first, answered when it happens.

From API 1.30 on the head of the answer is sent as soon as the wait is armed, so
that a client may start the container knowing that no exit can be missed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

from engine.context import Engine
from engine.http import BadRequest, InternalError, Request, Response, Router, json_response, streamed
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]

_CONDITIONS = {
    "": pb.WaitRequest.NOT_RUNNING,
    "not-running": pb.WaitRequest.NOT_RUNNING,
    "next-exit": pb.WaitRequest.NEXT_EXIT,
    "removed": pb.WaitRequest.REMOVED,
}


def register(router: Router, engine: Engine) -> None:
    async def wait(request: Request) -> Response:
        text = request.query.text("condition") if request.version >= (1, 30) else ""
        if text not in _CONDITIONS:
            raise BadRequest(f'invalid condition: "{text}"')
        container = await engine.containers.find(request.match["name"])
        replies = engine.port.stream(
            engine.port.containers.Wait,
            pb.WaitRequest(id=container.handle.id, condition=_CONDITIONS[text]),
        )
        try:
            await _next(replies)  # armed
            if request.version < (1, 30):
                answer = await _next(replies)
                await replies.aclose()
                return json_response({"StatusCode": answer.exit_code})
        except BaseException:
            await replies.aclose()
            raise
        return streamed(_answer(replies))

    router.add("POST", "/containers/{name}/wait", wait, blocking=True)


async def _next(replies: AsyncGenerator[pb.WaitReply, None]) -> pb.WaitReply:
    try:
        return await anext(replies)
    except StopAsyncIteration:
        raise InternalError("the port layer ended the wait without an answer") from None


async def _answer(replies: AsyncGenerator[pb.WaitReply, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(replies):
        value: dict[str, object]
        try:
            reply = await _next(replies)
        except (
            PortLayerError,
            InternalError,
        ) as error:  # the status line is gone: the body has a place for it
            value = {"StatusCode": -1, "Error": {"Message": error.message}}
        else:
            value = {"StatusCode": reply.exit_code}
            if reply.error:
                value["Error"] = {"Message": reply.error}
        yield json.dumps(value).encode() + b"\n"
