"""One guest's channel over all its connections: hello, calls, streams, events."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from portlayer.channel.connection import Connection, Timing
from portlayer.channel.errors import ChannelClosed, ChannelError, ChannelLost, TetherError
from portlayer.channel.stream import ChannelStream, parse
from portlayer.errors import PortLayerError
from tether.tether_pb2 import Event, EventsRequest, HelloReply, HelloRequest
from tether.wire import Code

__all__ = ["Connect", "TetherChannel"]

M = TypeVar("M", bound=Message)
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

log = logging.getLogger(__name__)


class _State(enum.Enum):
    NEW = "not started"
    RUNNING = "running"
    CLOSED = "closed"


class TetherChannel:
    def __init__(self, connect: Connect, *, name: str, timing: Timing | None = None) -> None:
        """``connect`` makes a fresh connection (Hypervisor.open_channel); ``name`` is for log lines."""
        self._connect = connect
        self._name = name
        self._timing = timing or Timing()
        self._state = _State.NEW
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None  # with a session and a hello
        self._hello = HelloReply()
        self._changed = asyncio.Event()  # replaced at each change of the two above
        self._listeners: list[Callable[[HelloReply], None]] = []

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to connect, in the background; returns at once."""
        if self._state is not _State.NEW:
            raise RuntimeError(f"channel {self._name} is {self._state.value}, it cannot be started")
        self._state = _State.RUNNING
        self._task = asyncio.create_task(self._run(), name=f"channel {self._name}")

    async def close(self) -> None:
        """End all calls with ChannelClosed and let go. The guest is not told. Idempotent."""
        self._state = _State.CLOSED
        if self._connection is not None:
            self._connection.fail_calls(self._closed())
        self._set_connection(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(f"the channel of {self._name} is closed")

    async def _run(self) -> None:
        delay = self._timing.retry_first
        clock = asyncio.get_running_loop().time
        # A loss that coincides with close() can swallow the cancellation: so look at the state, too.
        while self._state is _State.RUNNING:
            began = clock()
            reason = await self._one_connection()
            if clock() - began > self._timing.settled:
                delay = self._timing.retry_first
            log.info("channel %s: %s; again in %.2f s", self._name, reason, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._timing.retry_most)

    async def _one_connection(self) -> ChannelLost:
        try:
            async with asyncio.timeout(self._timing.connect):
                reader, writer = await self._connect()
        except TimeoutError:
            return ChannelLost("no connection in time")
        except (OSError, PortLayerError) as error:
            return ChannelLost(f"no connection: {error}")
        connection = Connection(reader, writer, timing=self._timing)
        greeting: asyncio.Task[None] | None = None

        def session_started() -> None:
            nonlocal greeting
            greeting = asyncio.create_task(self._greet(connection))

        try:
            return await connection.run(session_started)
        finally:
            self._set_connection(None)
            if greeting is not None:
                greeting.cancel()
                await asyncio.gather(greeting, return_exceptions=True)

    async def _greet(self, connection: Connection) -> None:
        """Say hello on a new session. A guest that cannot answer that is not ready for anything."""
        try:
            async with asyncio.timeout(self._timing.silence):
                stream = connection.open("Hello", HelloRequest().SerializeToString())
                async with stream:
                    hello = await stream.response(HelloReply)
        except (ChannelError, TimeoutError) as error:
            connection.give_up(ChannelLost(f"hello: {error or 'not answered'}"))
            return
        self._hello = hello
        self._set_connection(connection)
        for listener in list(self._listeners):
            try:
                listener(hello)
            except Exception:  # a listener's bug must not cost the channel
                log.exception("channel %s: a listener failed", self._name)

    def _set_connection(self, connection: Connection | None) -> None:
        self._connection = connection
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # ------------------------------------------------------------ use

    async def ready(self) -> HelloReply:
        """Wait for a session (no time limit: use asyncio.timeout); the guest's latest hello.

        Raises:
            ChannelClosed: after close().
        """
        await self._session()
        return self._hello

    async def _session(self) -> Connection:
        while True:
            if self._state is _State.CLOSED:
                raise self._closed()
            if self._connection is not None:
                return self._connection
            await self._changed.wait()

    @property
    def connected(self) -> bool:
        """Whether there is a session right now."""
        return self._connection is not None

    def on_session(self, callback: Callable[[HelloReply], None]) -> Callable[[], None]:
        """Call on every new session; returns a function that stops it."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def call(self, method: str, request: Message, reply: type[M], *, timeout: float = 30) -> M:
        """One question, one answer. Waits for a session first; ``timeout`` covers both.

        Raises:
            TetherError: the guest's refusal, or DEADLINE_EXCEEDED.
            ChannelLost: the connection died after the question was sent.
            ChannelClosed: after close().
        """
        try:
            async with asyncio.timeout(timeout), await self.stream(method, request) as stream:
                return await stream.response(reply)
        except TimeoutError:
            text = f"{self._name} has not answered {method} within {timeout:g} s"
            raise TetherError(Code.DEADLINE_EXCEEDED, text) from None

    async def stream(self, method: str, request: Message) -> ChannelStream:
        """Open a call with data. Waits for a session first (use asyncio.timeout)."""
        connection = await self._session()
        return connection.open(method, request.SerializeToString())

    async def events(self) -> AsyncIterator[Event]:
        """Every event of the guest, each once, over all reconnects; raises ChannelClosed at the end.

        Begins with what the guest still remembers. After a reboot of the guest
        (another boot nonce) it begins anew. A jump in the sequence means that
        the guest remembered no more: ask for the state itself then.
        """
        boot = ""
        after = 0
        while True:
            connection = await self._session()
            if self._hello.boot_nonce != boot:
                boot = self._hello.boot_nonce
                after = 0
            try:
                request = EventsRequest(after=after)
                async with connection.open("Events", request.SerializeToString()) as stream:
                    while body := await stream.receive():
                        event = parse(Event, body)
                        if event.sequence > after:
                            after = event.sequence
                            yield event
                reason = "the guest ended its events"
            except ChannelLost:
                continue
            except TetherError as error:
                reason = str(error)
                if error.code is Code.OUT_OF_RANGE:  # it has forgotten how far it was
                    after = 0
            log.warning("channel %s: events: %s", self._name, reason)
            await asyncio.sleep(self._timing.reset)
