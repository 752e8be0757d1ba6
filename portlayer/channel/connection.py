"""One connection to a guest, from its first byte to its loss: session, liveness, limits.

Everything a guest can do to us ends here, in the loss of this connection: it
breaks the protocol, sends noise without end, falls silent, hangs up, or does
not read until our queue of control frames is too long. Memory is bounded by
the session (tether/session.py) and by `Timing` and the limits below.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from portlayer.channel.errors import ChannelError, ChannelLost, TetherError
from portlayer.channel.stream import ChannelStream
from tether.session import (
    DataReceived,
    ErrorReceived,
    Event,
    LocalProtocolError,
    ResponseReceived,
    Role,
    Session,
    SessionFailed,
    SessionStarted,
    State,
)
from tether.wire import Code

__all__ = ["Connection", "Timing"]

_READ = 64 * 1024
_HANDSHAKE_BYTES = 64 << 20  # old output that may come before the answer to a reset
_NOISE = 1 << 20  # bytes of damage in one session
_BACKLOG = 8 << 20  # control frames for a guest that does not read


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds."""

    ping: float = 10  # of silence, then ask
    silence: float = 30  # then the connection counts as dead
    reset: float = 1  # between resets that are not answered
    handshake: float = 60  # for the answer to a reset: guests boot meanwhile
    connect: float = 10
    retry_first: float = 0.05
    retry_most: float = 2
    settled: float = 10  # a session that lasted so long was none of the guest's tricks


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, timing: Timing) -> None:
        self._reader = reader
        self._writer = writer
        self._timing = timing
        self._session = Session(Role.HOST)
        self._streams: dict[int, ChannelStream] = {}
        self._wake = asyncio.Event()  # the session may have something to send
        self._heard = asyncio.get_running_loop().time()
        self._frames = 0
        self._started_noise = 0
        self._lost: ChannelError | None = None
        self._gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, on_session: Callable[[], None]) -> ChannelLost:
        """Talk until the connection is lost; returns why.

        ``on_session`` is called once the guest has answered the reset. When
        this returns or is cancelled the socket is closed and every call has failed.
        """
        # Written bytes cannot be overtaken, so let the transport keep none.
        self._writer.transport.set_write_buffer_limits(high=0)
        reason = ChannelLost("the connection was given up")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write())
                tasks.create_task(self._watch())
                tasks.create_task(self._read(on_session))
                tasks.create_task(self._until_given_up())
        except* ChannelLost as group:
            reason = _first(group)
        except* OSError as group:
            reason = ChannelLost(f"connection: {_first(group)}")
        finally:
            self.fail_calls(reason)
            self._writer.transport.abort()
        return reason

    def give_up(self, reason: ChannelLost) -> None:
        """Make `run` return ``reason``."""
        if not self._gave_up.done():
            self._gave_up.set_exception(reason)

    async def _until_given_up(self) -> None:
        await self._gave_up

    def fail_calls(self, error: ChannelError) -> None:
        """End every call with ``error``; later ones fail at once."""
        if self._lost is None:
            self._lost = error
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.on_error(error)

    # ------------------------------------------------------------ calls

    def open(self, method: str, body: bytes) -> ChannelStream:
        """Send a request.

        Raises:
            TetherError: RESOURCE_EXHAUSTED, it is too large or too many are open.
            ChannelLost, ChannelClosed
        """
        if self._lost is not None:
            raise self._lost
        try:
            number = self._session.open(method, body)
        except LocalProtocolError as error:
            raise TetherError(Code.RESOURCE_EXHAUSTED, f"{method}: {error}") from error
        stream = ChannelStream(self, number, method)
        self._streams[number] = stream
        self._wake.set()
        return stream

    def send(self, number: int, data: bytes, *, end: bool) -> None:
        self._session.send(number, data, end=end)
        self._wake.set()

    def queued(self, number: int) -> int:
        return self._session.queued(number)

    def consume(self, number: int, count: int) -> None:
        self._session.consume(number, count)
        self._wake.set()

    def cancel(self, number: int) -> None:
        if self._session.is_open(number):
            self._session.cancel(number)
            self._wake.set()
        self._streams.pop(number, None)

    # ------------------------------------------------------------ bytes

    async def _read(self, on_session: Callable[[], None]) -> None:
        clock = asyncio.get_running_loop().time
        unanswered = 0
        while True:
            data = await self._reader.read(_READ)
            if not data:
                raise ChannelLost("the guest's end was closed")
            for event in self._session.receive(data):
                if isinstance(event, SessionStarted):
                    self._started_noise = self._session.noise
                    on_session()
                else:
                    self._dispatch(event)
            if self._session.frames != self._frames:
                self._frames = self._session.frames
                self._heard = clock()
            if self._session.state is State.WAITING:
                unanswered += len(data)
                if unanswered > _HANDSHAKE_BYTES:
                    raise ChannelLost("the guest sends and sends and does not answer the reset")
            elif self._session.noise - self._started_noise > _NOISE:
                raise ChannelLost("the guest sends noise")
            self._wake.set()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._end_of(event.stream, ended=event.end).on_data(event.body, event.end)
        elif isinstance(event, ResponseReceived):
            self._end_of(event.stream, ended=event.end).on_answer(event.body, event.end)
        elif isinstance(event, ErrorReceived):
            error = TetherError(event.code, event.message)
            self._end_of(event.stream, ended=True).on_error(error)
        elif isinstance(event, SessionFailed):
            raise ChannelLost(f"the guest broke the protocol: {event.error}")

    def _end_of(self, number: int, *, ended: bool) -> ChannelStream:
        return self._streams.pop(number) if ended else self._streams[number]

    async def _write(self) -> None:
        while True:
            data = self._session.pull()
            for number in self._session.take_drained():
                stream = self._streams.get(number)
                if stream is not None:
                    stream.wake()
            if data:
                self._writer.write(data)
                await self._writer.drain()
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _watch(self) -> None:
        """Reset until there is a session; then see that the guest lives and reads."""
        timing = self._timing
        clock = asyncio.get_running_loop().time
        nonce = os.urandom(16)
        deadline = clock() + timing.handshake
        while self._session.state is State.WAITING:
            if clock() > deadline:
                raise ChannelLost(f"the guest has not answered for {timing.handshake:g} s")
            if not self._session.backlog:  # the last one has gone out
                self._session.reset(nonce)
                self._wake.set()
            await asyncio.sleep(timing.reset)
        while True:
            silent = clock() - self._heard
            if silent >= timing.silence:
                raise ChannelLost(f"the guest has said nothing for {timing.silence:g} s")
            if self._session.backlog > _BACKLOG:
                raise ChannelLost("the guest does not read")
            if silent >= timing.ping:
                self._session.ping(os.urandom(8))
                self._wake.set()
                await asyncio.sleep(min(timing.ping, timing.silence - silent))
            else:
                await asyncio.sleep(timing.ping - silent)


def _first(group: BaseExceptionGroup[BaseException]) -> ChannelLost:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, ChannelLost) else ChannelLost(str(error))
