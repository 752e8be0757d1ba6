"""What a handler gets and what it gives back.

A handler is ``async def handler(request: Request) -> Response``. Its body is
one of three: bytes, an async iterator of bytes (streamed with back-pressure;
closed when the client goes away), or a hijack callback that takes over the
connection as a :class:`~engine.http.hijack.Duplex`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import pydantic

from engine.http.errors import BadRequest, TooLarge
from engine.http.hijack import Duplex

__all__ = ["Hijack", "Query", "Request", "Response", "empty", "json_response", "streamed"]

MAX_JSON_BYTES = 8 << 20
MAX_QUERY_FIELDS = 1000

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
        try:
            value = int(text)
        except ValueError:
            raise BadRequest(f"invalid value {text!r} for query parameter {name}: not a number") from None
        if not -(1 << 63) <= value < 1 << 63:
            raise BadRequest(f"invalid value {text!r} for query parameter {name}: out of range")
        return value


class BodySource(Protocol):
    async def receive(self) -> bytes:
        """The next piece of the body, ``b""`` at its end."""


@dataclass(kw_only=True)
class Request:
    method: str
    path: str  # decoded, without the version prefix
    version: tuple[int, int]  # negotiated API version
    query: Query
    headers: Mapping[str, str]  # lower-case names; repeated ones joined with ", "
    source: BodySource
    peer: str
    match: Mapping[str, str] = field(default_factory=dict)  # path parameters
    upgrade: bool = False  # the client asked for `Upgrade: tcp`
    has_body: bool = False

    async def stream(self) -> AsyncIterator[bytes]:
        """The raw body as it arrives; not reading is back-pressure."""
        while data := await self.source.receive():
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


@dataclass(frozen=True, kw_only=True)
class Hijack:
    """Take over the connection. ``run`` returns when the session is over; then it is closed."""

    run: Callable[[Duplex], Awaitable[None]]
    content_type: str = "application/vnd.docker.raw-stream"


@dataclass(kw_only=True)
class Response:
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | AsyncIterator[bytes] | Hijack = b""


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
