"""A registry in this process that does as it is told: serves images, asks for tokens, cuts, lies, stalls."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None  # send so many bytes of the body and close
    wait: asyncio.Event | None = None  # before the body's second half
    trickle: int = 0  # send the body in pieces of this size


Rule = Callable[[Asked], Answer | Awaitable[Answer | None] | None]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeRegistry:
    """`rules` are asked first, newest first; what none answers is served from `blobs` and `manifests`."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # repository, tag or digest
        self.rules: list[Rule] = []
        self.asked: list[Asked] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def blob(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def manifest(self, repository: str, name: str, document: Any, media_type: str) -> str:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.manifests[repository, name] = self.manifests[repository, digest_of(data)] = (media_type, data)
        return digest_of(data)

    def paths(self, part: str) -> list[str]:
        return [asked.path for asked in self.asked if part in asked.path]

    async def answer(self, asked: Asked) -> Answer:
        for rule in reversed(self.rules):
            found = rule(asked)
            if isinstance(found, Awaitable):
                found = await found
            if found is not None:
                return found
        if asked.path == "/v2/":
            return Answer(body=b"{}")
        repository, _, name = asked.path.removeprefix("/v2/").rpartition("/manifests/")
        if repository:
            if (repository, name) not in self.manifests:
                return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            media_type, data = self.manifests[repository, name]
            return Answer(headers={"Content-Type": media_type}, body=data)
        _, found_blob, name = asked.path.rpartition("/blobs/")
        if found_blob and name in self.blobs:
            return self.part(asked, self.blobs[name])
        return error(404, "BLOB_UNKNOWN", "blob unknown to registry")

    def part(self, asked: Asked, data: bytes) -> Answer:
        wanted = asked.headers.get("range", "")
        if not wanted:
            return Answer(body=data)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        return Answer(
            status=206,
            headers={"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"},
            body=data[start:],
        )

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket | None = None) -> AsyncIterator["FakeRegistry"]:
        if listener is None:
            listener = socket.create_server(("127.0.0.1", 0))
        server = await asyncio.start_server(self._connected, sock=listener)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (h11.RemoteProtocolError, ConnectionError):
            pass  # a client that speaks TLS to us, or has gone
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            asked: Asked | None = None
            body = b""
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    headers = {key.decode(): value.decode() for key, value in event.headers}
                    asked = Asked(event.method.decode(), event.target.decode(), headers)
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert asked is not None
            asked.body = body
            self.asked.append(asked)
            answer = await self.answer(asked)
            headers = {"Content-Length": str(len(answer.body)), **answer.headers}
            writer.write(
                connection.send(h11.Response(status_code=answer.status, headers=list(headers.items())))
            )
            if answer.cut is not None:
                writer.write(answer.body[: answer.cut])
                await writer.drain()
                return
            half = len(answer.body) // 2 if answer.wait else len(answer.body)
            step = answer.trickle or max(half, 1)
            for start in range(0, half, step):
                writer.write(connection.send(h11.Data(data=answer.body[start : min(start + step, half)])))
                await writer.drain()
            if answer.wait:
                await answer.wait.wait()
                writer.write(connection.send(h11.Data(data=answer.body[half:])))
            writer.write(connection.send(h11.EndOfMessage()))
            await writer.drain()
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=body)
