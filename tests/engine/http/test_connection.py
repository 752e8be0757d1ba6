"""HTTP over a unix socket pair: keep-alive, bodies, streams, hijack, half-close, lost clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from engine.http import (
    HIJACKED,
    Application,
    Conflict,
    Connection,
    Disconnected,
    Duplex,
    Request,
    Response,
    Router,
    empty,
    json_response,
    streamed,
)
from engine.http.transport import PlainTransport

LIMIT = 10.0


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), LIMIT)
        lines = raw.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if "content-length" in headers:
            body = await asyncio.wait_for(self.reader.readexactly(int(headers["content-length"])), LIMIT)
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self.chunks()])
        else:
            body = b""
        return status, headers, body

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await asyncio.wait_for(self.reader.readline(), LIMIT), 16):
            yield await asyncio.wait_for(self.reader.readexactly(size), LIMIT)
            await self.reader.readline()
        await self.reader.readline()

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), LIMIT)

    def close(self) -> None:
        self.writer.close()


class Server:
    def __init__(self) -> None:
        self.router = Router()
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []

    async def connect(self) -> tuple[Client, asyncio.Task[None]]:
        ours, theirs = socket.socketpair()
        application = Application(router=self.router, headers=[("Server", "test")])
        connection = Connection(PlainTransport(*await asyncio.open_connection(sock=ours)), application)
        task = asyncio.create_task(connection.serve())
        client = Client(*await asyncio.open_connection(sock=theirs))
        self._tasks.append(task)
        self._clients.append(client)
        return client, task

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    await made.close()


async def test_requests_follow_each_other_on_one_connection(server: Server) -> None:
    async def hello(request: Request) -> Response:
        return json_response(
            {"path": request.path, "version": list(request.version), "n": request.match["n"]}
        )

    server.router.add("GET", "/hello/{n}", hello)
    client, _ = await server.connect()
    for number in ("1", "2"):
        await client.send(f"GET /v1.41/hello/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, headers, body = await client.answer()
        assert (status, headers["server"]) == (200, "test")
        assert body == b'{"path":"/hello/%s","version":[1,41],"n":"%s"}\n' % (
            number.encode(),
            number.encode(),
        )


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    async def echo(request: Request) -> Response:
        return Response(body=await request.body())

    server.router.add("POST", "/echo", echo)
    client, _ = await server.connect()
    await client.send(
        b"".join(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5))
    )
    assert [(await client.answer())[2] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("request_line", "status", "message"),
    [
        ("GET /nothing", 404, "page not found"),
        ("PUT /busy", 404, "page not found"),
        ("GET /busy", 409, "busy"),
        ("GET /broken", 500, "internal error in operation "),
        ("GET /swarm", 503, "This node is not a swarm manager."),
        (
            "GET /v1.99/busy",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.50",
        ),
        (
            "GET /v1.12/busy",
            400,
            "client version 1.12 is too old. Minimum supported API version is 1.21, "
            "please upgrade your client to a newer version",
        ),
    ],
)
async def test_errors_are_json_with_their_status(
    server: Server, request_line: str, status: int, message: str
) -> None:
    async def busy(request: Request) -> Response:
        raise Conflict("busy")

    async def broken(request: Request) -> Response:
        raise KeyError("bug")

    server.router.add("GET", "/busy", busy)
    server.router.add("GET", "/broken", broken)
    server.router.refuse("GET", "/swarm", "This node is not a swarm manager.", status=503)
    client, _ = await server.connect()
    await client.send(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    got, headers, body = await client.answer()
    assert (got, headers["content-type"]) == (status, "application/json")
    assert body.startswith(b'{"message":"' + message.encode())


async def test_garbage_is_refused_and_the_connection_closed(server: Server) -> None:
    client, task = await server.connect()
    await client.send(b"\x16\x03\x01 not http\r\n\r\n")
    status, _, _ = await client.answer()
    assert status == 400
    client.close()
    await asyncio.wait_for(task, LIMIT)


async def test_head_larger_than_the_cap_is_refused(server: Server) -> None:
    client, _ = await server.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (300 * 1024))
    assert (await client.head())[0] == 431


async def test_head_request_gets_no_body(server: Server) -> None:
    async def hello(request: Request) -> Response:
        return Response(body=b"12345")

    server.router.add("HEAD", "/x", hello)
    server.router.add("GET", "/x", hello)
    client, _ = await server.connect()
    await client.send(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.head() == (200, {"server": "test", "content-length": "5"})
    assert (await client.answer())[2] == b"12345"


async def test_continue_is_sent_only_when_the_body_is_wanted(server: Server) -> None:
    async def echo(request: Request) -> Response:
        return Response(body=await request.body())

    async def refuse(request: Request) -> Response:
        raise Conflict("no")

    server.router.add("POST", "/echo", echo)
    server.router.add("POST", "/refuse", refuse)
    head = b"HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    client, _ = await server.connect()
    await client.send(b"POST /echo " + head)
    assert (await client.head())[0] == 100
    await client.send(b"hi")
    assert (await client.answer())[2] == b"hi"
    await client.send(b"POST /refuse " + head)
    assert (await client.answer())[0] == 409
    assert await client.rest() == b""


async def test_chunked_request_body_streams_with_back_pressure(server: Server) -> None:
    seen: list[int] = []
    go_on = asyncio.Event()

    async def take(request: Request) -> Response:
        async for chunk in request.stream():
            seen.append(len(chunk))
            await go_on.wait()
        return empty()

    server.router.add("PUT", "/take", take)
    client, _ = await server.connect()
    await client.send(b"PUT /take HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    payload = b"%x\r\n" % (1 << 16) + bytes(1 << 16) + b"\r\n"

    async def flood() -> None:
        for _ in range(200):
            await client.send(payload)
        await client.send(b"0\r\n\r\n")

    flooding = asyncio.create_task(flood())
    done, _ = await asyncio.wait({flooding}, timeout=0.3)
    assert not done, "13 MB fit into buffers that should be small"
    go_on.set()
    await asyncio.wait_for(flooding, LIMIT)
    assert (await client.answer())[0] == 204
    assert sum(seen) == 200 << 16


async def test_stream_is_flushed_chunk_by_chunk_and_closed_when_the_client_leaves(server: Server) -> None:
    closed = asyncio.Event()

    async def ticks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def stream(request: Request) -> Response:
        return streamed(ticks())

    server.router.add("GET", "/stream", stream)
    client, task = await server.connect()
    await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.head())[0] == 200
    assert await anext(client.chunks()) == b"first"
    client.close()
    await asyncio.wait_for(closed.wait(), LIMIT)
    await asyncio.wait_for(task, LIMIT)


async def test_stream_that_fails_is_cut_not_ended(server: Server) -> None:
    async def ticks() -> AsyncIterator[bytes]:
        yield b"first"
        raise Conflict("lost it")

    async def stream(request: Request) -> Response:
        return streamed(ticks())

    server.router.add("GET", "/stream", stream)
    client, _ = await server.connect()
    await client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.head())[0] == 200
    assert await client.rest() == b"5\r\nfirst\r\n"


async def test_never_reading_client_stops_the_stream_not_the_server(server: Server) -> None:
    sent = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    async def stream(request: Request) -> Response:
        return streamed(flood())

    async def hello(request: Request) -> Response:
        return Response(body=b"hello")

    server.router.add("GET", "/stream", stream)
    server.router.add("GET", "/hello", hello)
    lazy, task = await server.connect()
    lazy.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await lazy.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    other, _ = await server.connect()
    for _ in range(20):
        await other.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await other.answer())[2] == b"hello"
    assert 0 < sent < 4 << 20
    lazy.writer.transport.abort()
    await asyncio.wait_for(task, LIMIT)


@pytest.mark.parametrize("blocking", [True, False])
async def test_lost_client_cancels_blocking_handlers_and_lets_others_finish(
    server: Server, blocking: bool
) -> None:
    started, release, outcome = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()

    async def work(request: Request) -> Response:
        started.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            outcome.set_result("cancelled")
            raise
        outcome.set_result("finished")
        return empty()

    server.router.add("POST", "/work", work, blocking=blocking)
    client, task = await server.connect()
    await client.send(b"POST /work HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(started.wait(), LIMIT)
    client.close()
    if blocking:
        assert await asyncio.wait_for(outcome, LIMIT) == "cancelled"
    else:
        await client.writer.wait_closed()
        release.set()
        assert await asyncio.wait_for(outcome, LIMIT) == "finished"
    await asyncio.wait_for(task, LIMIT)


def shout(seen: list[bytes]) -> Callable[[Duplex], Awaitable[None]]:
    async def run(duplex: Duplex) -> None:
        while data := await duplex.read():
            seen.append(data)
        await duplex.write(b"".join(seen).upper())
        await duplex.write(b"!")

    return run


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("early", [b"", b"early "])
async def test_hijacked_connection_answers_after_the_client_closed_its_half(
    server: Server, upgrade: bool, early: bytes
) -> None:
    seen: list[bytes] = []

    async def attach(request: Request) -> Response:
        assert request.upgrade == upgrade
        await shout(seen)(await request.hijack())
        return HIJACKED

    server.router.add("POST", "/attach", attach)
    client, task = await server.connect()
    extra = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
    await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + extra + b"\r\n" + early)
    status, headers = await client.head()
    assert status == (101 if upgrade else 200)
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    assert headers.get("upgrade") == ("tcp" if upgrade else None)
    await client.send(b"hello")
    client.writer.write_eof()
    assert await client.rest() == (early + b"hello").upper() + b"!"
    await asyncio.wait_for(task, LIMIT)


async def test_hijack_with_a_request_body_first(server: Server) -> None:
    """docker-py posts JSON and asks for an upgrade in one request."""
    seen: list[bytes] = []

    async def start(request: Request) -> Response:
        body: Any = await request.json()
        seen.append(body["hello"].encode())
        await shout(seen)(await request.hijack())
        return HIJACKED

    server.router.add("POST", "/start", start)
    client, _ = await server.connect()
    await client.send(
        b"POST /start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 17\r\n"
        b'Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{"hello":"world"}after'
    )
    assert (await client.head())[0] == 101
    client.writer.write_eof()
    assert await client.rest() == b"WORLDAFTER!"


async def test_refused_upgrade_keeps_the_connection(server: Server) -> None:
    async def attach(request: Request) -> Response:
        raise Conflict("not now")

    server.router.add("POST", "/attach", attach)
    client, _ = await server.connect()
    for _ in range(2):
        await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert (await client.answer())[0] == 409


async def test_output_arrives_although_the_client_still_sends(server: Server) -> None:
    """Closing with unread input would reset the connection and lose the tail of the output."""

    async def run(duplex: Duplex) -> None:
        await duplex.read(1)
        await duplex.write(bytes(200_000))

    async def attach(request: Request) -> Response:
        await run(await request.hijack())
        return HIJACKED

    server.router.add("POST", "/attach", attach)
    client, _ = await server.connect()
    await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100_000)
    await client.head()
    assert len(await client.rest()) == 200_000


async def test_hijack_whose_client_vanished_ends(server: Server) -> None:
    ended = asyncio.Event()

    async def run(duplex: Duplex) -> None:
        try:
            while True:
                await duplex.write(bytes(1 << 16))
        except Disconnected:
            ended.set()
            raise

    async def attach(request: Request) -> Response:
        await run(await request.hijack())
        return HIJACKED

    server.router.add("POST", "/attach", attach)
    client, task = await server.connect()
    await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.head()
    client.writer.transport.abort()
    await asyncio.wait_for(ended.wait(), LIMIT)
    await asyncio.wait_for(task, LIMIT)
