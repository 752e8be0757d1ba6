"""Listeners: permissions, stale sockets, TLS over TCP, shutting down in order."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.http import Application, HttpServer, Request, Response, Router, server_context, streamed
from tests.engine.certificates import Authority

LIMIT = 10.0


class Gate:
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.closed = asyncio.Event()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[HttpServer]:
    async def hello(request: Request) -> Response:
        return Response(body=b"hello")

    async def slow(request: Request) -> Response:
        gate.entered.set()
        await gate.open.wait()
        return Response(body=b"done")

    async def ticks() -> AsyncIterator[bytes]:
        try:
            gate.entered.set()
            yield b"tick"
            await asyncio.Event().wait()
        finally:
            gate.closed.set()

    async def stream(request: Request) -> Response:
        return streamed(ticks())

    router = Router()
    router.add("GET", "/hello", hello)
    router.add("GET", "/slow", slow)
    router.add("GET", "/stream", stream)
    made = HttpServer(Application(router=router))
    yield made
    await made.close()


async def ask(path: Path, what: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), LIMIT)
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]


async def test_unix_socket_is_for_root_and_the_group(server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    await server.listen_unix(path, group="root")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [entry.name for entry in tmp_path.iterdir()] == ["docker.sock"]
    assert await ask(path, "/hello") == b"hello"


async def test_socket_file_of_a_dead_engine_is_replaced(server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await server.listen_unix(path, group="no such group")
    assert await ask(path, "/hello") == b"hello"


async def test_close_removes_the_socket_lets_answers_finish_and_cuts_streams(
    server: HttpServer, gate: Gate, tmp_path: Path
) -> None:
    path = tmp_path / "docker.sock"
    await server.listen_unix(path, group="root")
    streaming = asyncio.create_task(ask(path, "/stream"))
    await asyncio.wait_for(gate.entered.wait(), LIMIT)
    gate.entered.clear()
    slow = asyncio.create_task(ask(path, "/slow"))
    await asyncio.wait_for(gate.entered.wait(), LIMIT)
    closing = asyncio.create_task(server.close())
    await asyncio.wait_for(gate.closed.wait(), LIMIT)
    assert not path.exists()
    gate.open.set()
    assert await slow == b"done"
    await asyncio.gather(streaming, return_exceptions=True)  # cut: how the client sees it is its own
    await asyncio.wait_for(closing, LIMIT)


async def test_tls_over_tcp(server: HttpServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, client = authority.issue("server"), authority.issue("client")
    port = await server.listen_tcp(
        "127.0.0.1", 0, tls=server_context(cert=pair.cert, key=pair.key, ca=authority.cert)
    )
    context = ssl.create_default_context(cafile=authority.cert)
    context.load_cert_chain(client.cert, client.key)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), LIMIT)).endswith(b"hello")
    writer.close()
    await writer.wait_closed()


async def test_silent_tls_client_does_not_keep_others_waiting(server: HttpServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    port = await server.listen_tcp("127.0.0.1", 0, tls=server_context(cert=pair.cert, key=pair.key, ca=None))
    _, silent = await asyncio.open_connection("127.0.0.1", port)
    context = ssl.create_default_context(cafile=authority.cert)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), LIMIT)).endswith(b"hello")
    for each in (silent, writer):
        each.close()
        await each.wait_closed()
