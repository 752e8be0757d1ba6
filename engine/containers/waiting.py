"""``POST /containers/{name}/wait``: armed first, answered when it happens.

From API 1.30 on the head of the answer is sent as soon as the wait is armed, so
that a client may start the container knowing that no exit can be missed. A
port layer that restarts meanwhile is waited for and asked again: the container
has not noticed, so its waiters should not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from engine.containers import status
from engine.context import Engine
from engine.http import BadRequest, InternalError, Request, Response, Router, json_response, streamed
from engine.rpc import PortLayerError, PortLayerUnavailable
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]

logger = logging.getLogger(__name__)

RESTART_SECONDS = 60.0

_CONDITIONS = {
    "": pb.WaitRequest.NOT_RUNNING,
    "not-running": pb.WaitRequest.NOT_RUNNING,
    "next-exit": pb.WaitRequest.NEXT_EXIT,
    "removed": pb.WaitRequest.REMOVED,
}

Replies = AsyncGenerator[pb.WaitReply, None]


def register(router: Router, engine: Engine) -> None:
    async def wait(request: Request) -> Response:
        text = request.query.text("condition") if request.version >= (1, 30) else ""
        if text not in _CONDITIONS:
            raise BadRequest(f'invalid condition: "{text}"')
        container = await engine.containers.find(request.match["name"])
        waiter = _Waiter(engine, container, _CONDITIONS[text])
        await waiter.arm()
        if request.version < (1, 30):
            async with contextlib.aclosing(waiter):
                return json_response({"StatusCode": (await waiter.answer()).exit_code})
        return streamed(_body(waiter))

    router.add("POST", "/containers/{name}/wait", wait, blocking=True)


class _Waiter:
    def __init__(
        self, engine: Engine, container: pb.Container, condition: pb.WaitRequest.Condition.ValueType
    ) -> None:
        self._engine = engine
        self._id = container.handle.id
        self._exit_code = container.state.exit_code
        self._condition = condition
        self._armed_at = time.time_ns()
        self._replies: Replies | None = None

    async def arm(self) -> None:
        """Return when no exit can be missed any more."""
        port = self._engine.port
        replies = port.stream(port.containers.Wait, pb.WaitRequest(id=self._id, condition=self._condition))
        try:
            await _next(replies)
        except BaseException:
            await replies.aclose()
            raise
        self._replies = replies

    async def answer(self) -> pb.WaitReply:
        while True:
            assert self._replies is not None, "armed first"
            try:
                return await _next(self._replies)
            except PortLayerUnavailable as error:
                logger.info("wait for container %s is broken off: %s", self._id[:12], error)
            missed = await self._arm_again()
            if missed is not None:
                return missed

    async def _arm_again(self) -> pb.WaitReply | None:
        """The answer, when it happened while nobody looked."""
        await self.aclose()
        await self._engine.port.ready(RESTART_SECONDS)
        try:
            await self.arm()
        except PortLayerError as error:
            if error.reason == pb.NO_SUCH_CONTAINER and self._condition == pb.WaitRequest.REMOVED:
                return pb.WaitReply(exit_code=self._exit_code)
            raise
        found = await self._engine.containers.get(self._id)
        if found is None:
            return None  # the wait that is armed will say so
        self._exit_code = found.state.exit_code
        ended = not status.is_running(found.state) and found.state.finished_at > self._armed_at
        if self._condition == pb.WaitRequest.NEXT_EXIT and ended:
            return pb.WaitReply(exit_code=found.state.exit_code)
        return None

    async def aclose(self) -> None:
        if self._replies is not None:
            await self._replies.aclose()


async def _next(replies: Replies) -> pb.WaitReply:
    try:
        return await anext(replies)
    except StopAsyncIteration:
        raise InternalError("the port layer ended the wait without an answer") from None


async def _body(waiter: _Waiter) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(waiter):
        value: dict[str, Any]
        try:
            reply = await waiter.answer()
        except (
            PortLayerError,
            InternalError,
        ) as error:  # the status line is gone: the body has a place for it
            value = {"StatusCode": -1, "Error": {"Message": error.message}}
        else:  # why it could not start is told by the start and by inspect, as dockerd does
            value = {"StatusCode": reply.exit_code}
        yield json.dumps(value).encode() + b"\n"
