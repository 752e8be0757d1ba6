"""A QMP server that answers from a table, for tests of whoever talks to one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["FakeQmp", "Refusal", "fake_qmp"]

Answer = Callable[[Mapping[str, Any]], Any]
GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}


class Refusal(Exception):
    """Raised by an answer: QEMU's error."""


class FakeQmp:
    """``answers`` maps a command to what it returns; anything else returns an empty object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self._writer: asyncio.StreamWriter | None = None

    def event(self, name: str, **data: Any) -> None:
        assert self._writer is not None
        self._send({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def names(self) -> list[str]:
        return [name for name, _ in self.commands]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        self._send(GREETING)
        async for request in _objects(reader):
            name, arguments = request["execute"], request.get("arguments", {})
            self.commands.append((name, arguments))
            try:
                result = self.answers.get(name, lambda _: {})(arguments)
                if asyncio.iscoroutine(result):
                    result = await result
            except Refusal as error:
                reply: dict[str, Any] = {"error": {"class": "GenericError", "desc": str(error)}}
            else:
                reply = {"return": result}
            if "id" in request:
                reply["id"] = request["id"]
            self._send(reply)
        writer.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._writer is not None
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\r\n")


async def _objects(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """A client ends its objects with nothing, and puts blanks between them as it likes."""
    decoder = json.JSONDecoder()
    text = ""
    while chunk := await reader.read(65536):
        text = (text + chunk.decode()).lstrip()
        while text:
            try:
                value, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:].lstrip()
            yield value


@asynccontextmanager
async def fake_qmp(path: Path) -> AsyncIterator[FakeQmp]:
    qmp = FakeQmp(path)
    server = await asyncio.start_unix_server(qmp.serve, str(path))
    try:
        yield qmp
    finally:
        server.close()
        await server.wait_closed()
