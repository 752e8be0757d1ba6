"""TLS on a socket pair: half-close both ways, client certificates, versions, cuts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.http import (
    HIJACKED,
    Application,
    Connection,
    Disconnected,
    Request,
    Response,
    Router,
    server_context,
)
from engine.http.tls import TlsTransport
from tests.engine.certificates import Authority

LIMIT = 10.0


class TlsClient:
    """A client that can close its sending half and still read (as Go's does)."""

    def __init__(self, ours: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = ours
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(sock=self._socket)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._fill()
            else:
                break
        await self._flush()

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def close_half(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self._flush()

    async def read_some(self) -> bytes:
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._fill()

    async def read_all(self) -> bytes:
        parts = []
        while True:
            try:
                data = self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except ssl.SSLZeroReturnError:
                break
            if not data:
                break
            parts.append(data)
        return b"".join(parts)

    async def _fill(self) -> None:
        await self._flush()
        data = await asyncio.wait_for(self.reader.read(65536), LIMIT)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            self.writer.write(self._outgoing.read())
            await self.writer.drain()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def client_context(authority: Authority, *, name: str | None = "client") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.cert)
    if name is not None:
        pair = authority.issue(name)
        context.load_cert_chain(pair.cert, pair.key)
    return context


class Pair:
    def __init__(self, authority: Authority, router: Router) -> None:
        self._authority = authority
        self._router = router
        self.peer = ""
        self.complete_inputs = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.clients: list[TlsClient] = []

    async def connect(self, context: ssl.SSLContext) -> tuple[TlsClient, asyncio.Task[None]]:
        server = self._authority.issue("server")
        ours, theirs = socket.socketpair()
        transport = TlsTransport(
            *await asyncio.open_connection(sock=ours),
            server_context(cert=server.cert, key=server.key, ca=self._authority.cert),
        )

        async def serve() -> None:
            try:
                await transport.handshake()
            except Disconnected:
                transport.abort()
                raise
            self.peer = transport.peer
            await Connection(transport, Application(router=self._router)).serve()

        task = asyncio.create_task(serve())
        self.tasks.append(task)
        client = TlsClient(theirs, context)
        self.clients.append(client)
        await client.connect()
        return client, task

    async def close(self) -> None:
        for client in self.clients:
            client.writer.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def pair(authority: Authority) -> AsyncIterator[Pair]:
    router = Router()
    made = Pair(authority, router)

    async def shout(request: Request) -> Response:
        duplex = await request.hijack()
        seen = b""
        while data := await duplex.read():
            seen += data
        made.complete_inputs += 1
        await duplex.write(seen.upper())
        await duplex.write(b"!" * 300_000)
        return HIJACKED

    async def hello(request: Request) -> Response:
        return Response(body=b"hello " + request.peer.encode())

    router.add("POST", "/attach", shout)
    router.add("GET", "/hello", hello)
    yield made
    await made.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_output_follows_the_end_of_the_clients_input(
    pair: Pair, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    client, task = await pair.connect(context)
    await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    await client.send(b"hello " * 10_000)
    await client.close_half()
    head, _, output = (await client.read_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED")
    assert output == b"HELLO " * 10_000 + b"!" * 300_000
    client.writer.close()
    await asyncio.wait_for(task, LIMIT)


async def test_requests_know_the_clients_certificate(pair: Pair, authority: Authority) -> None:
    client, _ = await pair.connect(client_context(authority, name="alice"))
    await client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await client.read_all()).endswith(b"(alice)")


async def test_client_without_a_certificate_is_told_and_cut_off(pair: Pair, authority: Authority) -> None:
    with pytest.raises(ssl.SSLError, match=r"certificate required|handshake failure"):
        client, _ = await pair.connect(client_context(authority, name=None))
        await client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_all()
    with pytest.raises(Disconnected):
        await asyncio.wait_for(pair.tasks[0], LIMIT)


async def test_certificate_of_another_authority_is_refused(
    pair: Pair, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other", "other").issue("mallory")
    context = client_context(authority, name=None)
    context.load_cert_chain(stranger.cert, stranger.key)
    with pytest.raises(ssl.SSLError):
        client, _ = await pair.connect(context)
        await client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.read_all()
    with pytest.raises(Disconnected):
        await asyncio.wait_for(pair.tasks[0], LIMIT)


async def test_plain_http_on_a_tls_port_is_cut_off(authority: Authority) -> None:
    server = authority.issue("server")
    ours, theirs = socket.socketpair()
    transport = TlsTransport(
        *await asyncio.open_connection(sock=ours),
        server_context(cert=server.cert, key=server.key, ca=None),
    )
    theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(Disconnected, match="TLS handshake"):
        await transport.handshake()
    transport.abort()
    theirs.close()


async def test_cut_without_close_notify_is_no_end_of_input(pair: Pair, authority: Authority) -> None:
    """A cut must not look like a complete input: the process would act on half of it."""
    client, task = await pair.connect(client_context(authority))
    await client.send(b"POST /attach HTTP/1.1\r\nHost: x\r\n\r\nhalf of it")
    assert (await client.read_some()).startswith(b"HTTP/1.1 200")
    client.writer.transport.abort()
    await asyncio.wait_for(task, LIMIT)
    assert pair.complete_inputs == 0
