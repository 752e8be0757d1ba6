"""One gRPC channel to the port layer, with time limits and errors as API errors.

The channel reconnects by itself. A call made while it is down waits a few
seconds for it (a restarting port layer goes unnoticed) and then fails with
:class:`~engine.rpc.errors.PortLayerUnavailable`. Calls are never repeated
silently unless the caller says ``idempotent``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import grpc

from engine import operation
from engine.rpc.errors import PortLayerError, PortLayerUnavailable, translate
from portlayer import portlayer_pb2_grpc as stubs

__all__ = ["PortLayer", "Session"]

logger = logging.getLogger(__name__)

_EOF: Any = cast(Any, grpc.aio).EOF  # missing in the stubs

Q = TypeVar("Q")
R = TypeVar("R")

_ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)  # how a write to an ended call fails

READY_SECONDS = 5.0
CALL_SECONDS = 120.0
OPTIONS = (
    ("grpc.max_receive_message_length", 256 << 20),  # a list of thousands of containers is one message
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),  # the peer is a local socket: asking often is cheap
    ("grpc.use_local_subchannel_pool", 1),
)


class _TrueStatus:
    """Stands before grpc's inner call object so that a failed write does not hide why it failed.

    When the port layer refuses while a message is on its way to it, grpc sets the
    call's status to "Internal error from Core", and the refusal that arrives
    right behind is dropped. Without that the status is the port layer's.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, text: str) -> None:
        logger.debug("a write met the end of its call: %s", text)


def _writable(method: Any, metadata: Any) -> Any:
    """A call that is written step by step (no iterator)."""
    call = method(metadata=metadata)
    call._cython_call = _TrueStatus(call._cython_call)
    return call


class Session(Generic[Q, R]):
    """A call with messages both ways."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Q, R]) -> None:
        self._call = call

    async def send(self, message: Q) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        except asyncio.InvalidStateError as error:  # grpc's word for a call that has ended
            raise PortLayerError("the session has ended", status=409) from error

    async def receive(self) -> R | None:
        """The next message, ``None`` at the end."""
        try:
            reply: Any = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return None if reply is _EOF else reply

    def cancel(self) -> None:
        self._call.cancel()


class PortLayer:
    """Make it inside a running event loop."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self.containers: stubs.ContainersAsyncStub = stubs.ContainersStub(self._channel)
        self.interaction: stubs.InteractionAsyncStub = stubs.InteractionStub(self._channel)
        self.layers: stubs.LayersAsyncStub = stubs.LayersStub(self._channel)
        self.volumes: stubs.VolumesAsyncStub = stubs.VolumesStub(self._channel)
        self.networks: stubs.NetworksAsyncStub = stubs.NetworksStub(self._channel)
        self.keys: stubs.KeyValuesAsyncStub = stubs.KeyValuesStub(self._channel)
        self.system: stubs.SystemAsyncStub = stubs.SystemStub(self._channel)

    async def close(self) -> None:
        await self._channel.close(None)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        *,
        timeout: float | None = CALL_SECONDS,
        idempotent: bool = False,
        patience: float = READY_SECONDS,
    ) -> R:
        """One question, one answer. ``timeout=None`` waits as long as the port layer lives.

        ``patience``: how long a port layer that is down is waited for.
        """
        await self.ready(patience)
        try:
            return await method(request, timeout=timeout, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            if not (idempotent and error.code() is grpc.StatusCode.UNAVAILABLE):
                raise translate(error) from error
        await self.ready()
        try:
            return await method(request, timeout=timeout, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Q, R], request: Q, *, timeout: float | None = None
    ) -> AsyncGenerator[R, None]:
        """One question, many answers. Closing the generator cancels the call."""
        await self.ready()
        call = method(request, timeout=timeout, metadata=self._metadata())
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        finally:
            call.cancel()

    async def upload(self, method: grpc.aio.StreamUnaryMultiCallable[Q, R], messages: AsyncIterator[Q]) -> R:
        """Many messages, one answer. When ``messages`` raises, the call is cancelled and so does this."""
        await self.ready()
        call = _writable(method, self._metadata())
        try:
            async for message in messages:
                if call.done():  # refused early: its status says why
                    break
                with contextlib.suppress(*_ENDED):  # ditto, raised below by awaiting the call
                    await call.write(message)
            with contextlib.suppress(*_ENDED):
                await call.done_writing()
            reply: R = await call
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        finally:
            call.cancel()
        return reply

    @contextlib.asynccontextmanager
    async def session(self, method: grpc.aio.StreamStreamMultiCallable[Q, R]) -> AsyncIterator[Session[Q, R]]:
        """Messages both ways; leaving the block cancels what is left of the call."""
        await self.ready()
        call = _writable(method, self._metadata())
        try:
            yield Session(call)
        finally:
            call.cancel()

    async def ready(self, patience: float = READY_SECONDS) -> None:
        """Return when the channel is up; PortLayerUnavailable after ``patience`` seconds."""
        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(patience):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise PortLayerUnavailable("it is not running or restarting; try again") from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((operation.METADATA_KEY, operation.current()),)
