"""What a handler gets and what it gives back.

A handler is ``async def handler(request: Request) -> Response``. The response's
body is bytes, or an async iterator of bytes (streamed with back-pressure;
closed when the client goes away). A handler may instead take over the
connection with ``request.hijack()`` and return :data:`HIJACKED` when the
session is over.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import pydantic

from engine.http.errors import BadRequest, TooLarge
from engine.http.hijack import Duplex

__all__ = ["HIJACKED", "Query", "Request", "Response", "empty", "json_response", "streamed"]

MAX_JSON_BYTES = 8 << 20
MAX_QUERY_FIELDS = 1000

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")

M = TypeVar("M", bound=pydantic.BaseModel)


class Query:
    """Query parameters with Docker's reading of them."""

    def __init__(self, text: str) -> None:
        try:
            self._values = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError as error:
            raise BadRequest(f"invalid query: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Docker's booleans: everything but "", 0, no, false and none is true."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in ("", "0", "no", "false", "none")

    def integer(self, name: str, default: int = 0) -> int:
        text = self.text(name)
        if not text:
            return default
        if not _INTEGER.fullmatch(text):
            raise BadRequest(f"invalid value {text!r} for query parameter {name}: not a number")
        value = int(text)
        if not -(1 << 63) <= value < 1 << 63:
            raise BadRequest(f"invalid value {text!r} for query parameter {name}: out of range")
        return value


class Exchange(Protocol):
    """The connection as a request sees it."""

    async def receive(self) -> bytes:
        """The next piece of the body, ``b""`` at its end."""

    async def hijack(self, content_type: str) -> Duplex:
        """Send the head of the answer and hand over the raw connection."""


@dataclass(kw_only=True)
class Request:
    method: str
    path: str  # decoded, without the version prefix
    version: tuple[int, int]  # negotiated API version
    query: Query
    headers: Mapping[str, str]  # lower-case names; repeated ones joined with ", "
    exchange: Exchange
    peer: str
    match: Mapping[str, str] = field(default_factory=dict)  # path parameters
    upgrade: bool = False  # the client asked for `Upgrade: tcp`
    has_body: bool = False

    async def hijack(self, content_type: str = "application/vnd.docker.raw-stream") -> Duplex:
        """Take over the connection: 101 when the client asked to upgrade, 200 otherwise.

        Until this is called errors are ordinary answers; afterwards they belong
        into the stream. The connection is closed when the handler returns.
        """
        return await self.exchange.hijack(content_type)

    async def stream(self) -> AsyncIterator[bytes]:
        """The raw body as it arrives; not reading is back-pressure."""
        while data := await self.exchange.receive():
            yield data

    async def body(self, *, limit: int = MAX_JSON_BYTES) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for data in self.stream():
            size += len(data)
            if size > limit:
                raise TooLarge(f"request body larger than {limit} bytes")
            parts.append(data)
        return b"".join(parts)

    async def json(self, *, optional: bool = False) -> Any:
        """The body as JSON; with ``optional``, no body is ``None``."""
        raw = await self.body()
        if not raw.strip():
            if optional:
                return None
            raise BadRequest("invalid JSON: got EOF while reading request body")
        media = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json" and not (optional and not media):
            raise BadRequest(
                f"unsupported Content-Type header ({media}): must be 'application/json'"
                if media
                else "missing Content-Type header: must be 'application/json'"
            )
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"invalid JSON: {error}") from error

    async def model(self, kind: type[M], *, optional: bool = False) -> M:
        """The body as a pydantic model; 400 names the first wrong field."""
        value = await self.json(optional=optional)
        return validated(kind, {} if value is None else value)


def validated(kind: type[M], value: Any) -> M:
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadRequest(f"invalid JSON: {where}: {first['msg']}") from error
    except RecursionError as error:
        raise BadRequest("invalid JSON: nested too deeply") from error


@dataclass(kw_only=True)
class Response:
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | AsyncIterator[bytes] = b""


HIJACKED = Response()  # what a handler returns after a hijack; never sent


def empty(status: int = 204, headers: Sequence[tuple[str, str]] = ()) -> Response:
    return Response(status=status, headers=headers)


def json_response(value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return Response(status=status, headers=[("Content-Type", "application/json"), *headers], body=body)


def streamed(
    chunks: AsyncIterator[bytes],
    *,
    content_type: str = "application/json",
    status: int = 200,
    headers: Sequence[tuple[str, str]] = (),
) -> Response:
    """Headers go out at once, then each chunk as it comes."""
    return Response(status=status, headers=[("Content-Type", content_type), *headers], body=chunks)
