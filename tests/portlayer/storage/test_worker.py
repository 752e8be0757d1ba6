"""The parent's end of the pipe, against a child that is played by the test."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from portlayer.offline.frames import CANCEL, DATA, END, ERROR, HEADER, REPLY, REQUEST, encode, encode_document
from portlayer.storage.worker import Worker, WorkerError


class Child:
    """What the worker talks to; the test decides what it says."""

    def __init__(self) -> None:
        self.pid = 1
        self.returncode: int | None = None
        self._gone = asyncio.Event()

    async def connect(self) -> Worker:
        (our_in, their_out), (their_in, our_out) = socket.socketpair(), socket.socketpair()
        self.stdout, self._unused = await asyncio.open_connection(sock=our_in)
        _, self.stdin = await asyncio.open_connection(sock=our_out)
        self.reader, self._their_in = await asyncio.open_connection(sock=their_in)
        _, self.writer = await asyncio.open_connection(sock=their_out)
        self.stderr = asyncio.StreamReader()
        return Worker(self)  # type: ignore[arg-type]

    async def receive(self) -> tuple[int, bytes]:
        kind, length = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return kind, await self.reader.readexactly(length)

    async def request(self) -> dict:
        kind, body = await self.receive()
        assert kind == REQUEST
        return json.loads(body)

    def say(self, kind: int, body: bytes | dict = b"") -> None:
        self.writer.write(encode_document(kind, body) if isinstance(body, dict) else encode(kind, body))

    def die(self, code: int = -9, words: bytes = b"") -> None:
        self.returncode = code
        self.stderr.feed_data(words)
        self.stderr.feed_eof()
        self.writer.close()
        self._their_in.close()
        self._gone.set()

    async def wait(self) -> int | None:
        await self._gone.wait()
        return self.returncode

    def kill(self) -> None:
        self.die()


@pytest_asyncio.fixture
async def child() -> AsyncIterator[Child]:
    child = Child()
    child.worker = await child.connect()
    yield child
    if child.returncode is None:
        child.die(0)
    await child.worker.end(keep=False)
    child._unused.close()
    for stream in (child.writer, child._their_in, child._unused):
        await stream.wait_closed()


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


FAILURE = {"kind": "os", "message": "no", "errno": 2}


async def test_a_call_and_its_reply(child: Child) -> None:
    call = asyncio.create_task(child.worker.call("stat", path="/x"))
    assert await child.request() == {"verb": "stat", "path": "/x"}
    child.say(REPLY, {"size": 1})
    assert await call == {"size": 1}


async def test_a_call_and_its_error(child: Child) -> None:
    call = asyncio.create_task(child.worker.call("stat", path="/x"))
    await child.request()
    child.say(ERROR, FAILURE)
    with pytest.raises(WorkerError, match="no") as caught:
        await call
    assert (caught.value.kind, caught.value.errno) == ("os", 2)


async def test_an_upload(child: Child) -> None:
    call = asyncio.create_task(child.worker.upload("unpack", chunks(b"one", b"x" * (3 << 20)), path="/"))
    await child.request()
    received = b""
    while (frame := await child.receive())[0] == DATA:
        assert len(frame[1]) <= 1 << 20
        received += frame[1]
    assert frame == (END, b"")
    assert received == b"one" + b"x" * (3 << 20)
    child.say(REPLY, {"members": 1})
    assert await call == {"members": 1}


async def test_an_upload_that_the_child_refuses_asks_for_no_more(child: Child) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 1000
            await asyncio.sleep(0)

    call = asyncio.create_task(child.worker.upload("unpack", endless(), path="/"))
    await child.request()
    child.say(ERROR, FAILURE)
    with pytest.raises(WorkerError):
        while not call.done():
            await child.receive()
        await call
    seen = given
    await asyncio.sleep(0)
    assert given == seen


@pytest.mark.parametrize("how", ["source", "cancel"])
async def test_an_upload_that_breaks_off_leaves_the_child_usable(child: Child, how: str) -> None:
    class SourceFailed(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        if how == "source":
            raise SourceFailed
        await asyncio.Event().wait()

    call = asyncio.create_task(child.worker.upload("unpack", broken(), path="/"))
    await child.request()
    assert await child.receive() == (DATA, b"half")
    if how == "cancel":
        call.cancel()
    assert await child.receive() == (CANCEL, b"")
    assert not call.done()
    child.say(ERROR, {"kind": "cancelled", "message": "", "errno": 0})
    with pytest.raises((SourceFailed, asyncio.CancelledError)):
        await call
    await test_a_call_and_its_reply(child)


async def test_a_download_and_its_early_end(child: Child) -> None:
    download = child.worker.download("pack", path="/")
    first = asyncio.create_task(anext(download))
    await child.request()
    child.say(DATA, b"one")
    child.say(DATA, b"two")
    assert await first == b"one"
    closing = asyncio.create_task(download.aclose())
    assert await child.receive() == (CANCEL, b"")
    child.say(DATA, b"three")
    child.say(REPLY, {})
    await closing
    await test_a_call_and_its_reply(child)


async def test_a_download_that_fails_late(child: Child) -> None:
    download = child.worker.download("pack", path="/")
    first = asyncio.create_task(anext(download))
    await child.request()
    child.say(DATA, b"one")
    child.say(ERROR, {"kind": "archive", "message": "shrank", "errno": 0})
    assert await first == b"one"
    with pytest.raises(WorkerError, match="shrank"):
        await anext(download)
    await test_a_call_and_its_reply(child)


async def test_cancelled_in_the_middle_of_a_frame_the_download_still_ends_in_order(child: Child) -> None:
    async def read() -> None:
        async for _ in child.worker.download("pack", path="/"):
            pass

    task = asyncio.create_task(read())
    await child.request()
    child.writer.write(encode(DATA, b"x" * 100)[:50])
    await asyncio.sleep(0)
    while child.worker._header is None:
        await asyncio.sleep(0)
    task.cancel()
    assert await child.receive() == (CANCEL, b"")
    child.writer.write(encode(DATA, b"x" * 100)[50:])
    child.say(REPLY, {})
    with pytest.raises(asyncio.CancelledError):
        await task
    await test_a_call_and_its_reply(child)


async def test_after_a_cancelled_call_nothing_is_asked_any_more(child: Child) -> None:
    call = asyncio.create_task(child.worker.call("stat", path="/"))
    await child.request()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(WorkerError, match="not answered"):
        await child.worker.call("stat", path="/")
    child.die(0)
    await child.worker.end(keep=True)
    assert await child.reader.read() == b""  # no "close" was sent


@pytest.mark.parametrize("moment", ["before", "reply", "upload"])
async def test_a_death_is_told_with_the_last_words(child: Child, moment: str) -> None:
    if moment == "before":
        child.die(words=b"line\nKilled by nobody\n")
        call = asyncio.create_task(child.worker.call("stat", path="/"))
    elif moment == "reply":
        call = asyncio.create_task(child.worker.call("stat", path="/"))
        await child.request()
        child.die(words=b"line\nKilled by nobody\n")
    else:
        call = asyncio.create_task(child.worker.upload("unpack", chunks(*[b"x" * 100_000] * 100), path="/"))
        await child.request()
        child.die(words=b"line\nKilled by nobody\n")
    with pytest.raises(WorkerError, match="ended with -9: Killed by nobody"):
        await call


@pytest.mark.parametrize("report", [True, False])
async def test_what_could_not_be_kept_is_told_when_wanted(child: Child, report: bool) -> None:
    end = asyncio.create_task(child.worker.end(keep=True, report=report))
    assert (await child.request())["verb"] == "close"
    child.say(ERROR, {"kind": "fault", "message": "unclean", "errno": 0})
    child.die(1)
    if report:
        with pytest.raises(WorkerError, match="unclean"):
            await end
    else:
        await end
