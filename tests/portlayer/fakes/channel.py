"""The host's end of a guest's channel, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from portlayer.channel import ChannelClosed, ChannelLost, TetherError
from tests.portlayer.fakes.guest import FakeGuest
from tether.tether_pb2 import (
    AttachInput,
    AttachOutput,
    AttachRequest,
    Empty,
    Event,
    HelloReply,
    MainState,
    PathStat,
    Stats,
)
from tether.wire import Code


class FakeStream:
    """Both directions of a call with data."""

    def __init__(self, channel: FakeChannel, method: str, request: Any) -> None:
        self.channel = channel
        self.method = method
        self.request = request
        self.sent: list[bytes] = []
        self.ended = asyncio.Event()
        self._frames = channel.guest_stream(method, request, self)

    async def __aenter__(self) -> FakeStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cancel()

    async def response(self, reply: type[Any]) -> Any:
        first = await anext(self._frames)
        if isinstance(first, Exception):
            raise first
        return first

    async def receive(self) -> bytes:
        async for frame in self._frames:
            if isinstance(frame, Exception):
                raise frame
            return frame if isinstance(frame, bytes) else frame.SerializeToString()
        return b""

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.channel.check()
        self.sent.append(data)
        if self.method == "Attach":
            self.channel.input(self.request, AttachInput.FromString(data))
        if end:
            self.ended.set()

    async def cancel(self) -> None:
        await self._frames.aclose()


class FakeChannel:
    def __init__(self, guest: Callable[[], FakeGuest | None]) -> None:
        self._guest = guest
        self._closed = asyncio.Event()
        self._cut = asyncio.Event()  # cut once: everything under way is lost
        self.calls: list[str] = []

    @property
    def guest(self) -> FakeGuest:
        guest = self._guest()
        if guest is None or self._closed.is_set():
            raise ChannelClosed("closed")
        return guest

    def check(self) -> None:
        _ = self.guest

    def cut(self) -> None:
        self._cut.set()
        self._cut = asyncio.Event()

    async def start(self) -> None: ...

    async def close(self) -> None:
        self._closed.set()
        self.cut()

    async def _up(self) -> FakeGuest:
        guest = self.guest
        while guest.deaf or guest.state.state == MainState.UNKNOWN:
            await self._until(guest.news.wait())
        return guest

    async def _until(self, awaitable: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(awaitable)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            closed.cancel()
        if self._closed.is_set():
            raise ChannelClosed("closed")

    async def ready(self) -> HelloReply:
        guest = await self._up()
        return HelloReply(protocol=1, main=guest.state)

    async def call(self, method: str, request: Any, reply: type[Any], *, timeout: float = 30) -> Any:
        self.calls.append(method)
        try:
            async with asyncio.timeout(timeout):
                guest = await self._up()
        except TimeoutError as error:
            raise TetherError(Code.DEADLINE_EXCEEDED, "no answer") from error
        return guest.handle(method, request)

    async def stream(self, method: str, request: Any) -> FakeStream:
        await self._up()
        return FakeStream(self, method, request)

    async def guest_stream(self, method: str, request: Any, stream: FakeStream) -> AsyncIterator[Any]:
        cut = self._cut
        guest = self.guest
        if method == "WatchStats":
            yield Stats(time=1)
            yield Stats(time=2)
            return
        if method == "CopyOut":
            if request.path not in guest.files:
                yield TetherError(Code.NOT_FOUND, "no such file")
                return
            yield PathStat(name=request.path, size=len(guest.files[request.path]))
            yield guest.files[request.path]
            return
        if method == "CopyIn":
            await stream.ended.wait()
            guest.files[request.path] = b"".join(stream.sent)
            yield Empty()
            return
        assert isinstance(request, AttachRequest)
        yield Empty()
        if request.stdin:
            yield AttachOutput(stream=AttachOutput.STDIN_ACK, offset=len(guest.stdin))
        sent = 0
        acknowledged = len(guest.stdin)
        offsets = {AttachOutput.STDOUT: request.stdout_offset, AttachOutput.STDERR: request.stderr_offset}
        while True:
            if cut.is_set():
                yield ChannelClosed("closed") if self._closed.is_set() else ChannelLost("cut")
                return
            if request.stdin and guest.taking_stdin and len(guest.stdin) != acknowledged:
                acknowledged = len(guest.stdin)
                yield AttachOutput(stream=AttachOutput.STDIN_ACK, offset=acknowledged)
            output = guest.exec_output.get(request.exec_id, [])
            while sent < len(output):
                frame = output[sent]
                sent += 1
                if frame.stream == AttachOutput.EXITED:
                    yield frame
                    return
                if frame.offset >= offsets[frame.stream]:
                    yield frame
            waiting = [asyncio.ensure_future(guest.news.wait()), asyncio.ensure_future(cut.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    def input(self, request: AttachRequest, message: AttachInput) -> None:
        guest = self.guest
        new = message.data[max(0, len(guest.stdin) - message.offset) :]
        assert message.offset <= len(guest.stdin), "input with a hole"
        guest.stdin += new
        guest.stdin_closed = guest.stdin_closed or message.close
        guest.stir()

    async def events(self) -> AsyncIterator[Event]:
        seen = 0
        while True:
            guest = self.guest
            news = guest.news
            if guest.deaf or seen >= len(guest.events):
                await self._until(news.wait())
                continue
            yield guest.events[seen]
            seen += 1
