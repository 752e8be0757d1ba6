"""Stands between every client of a test and the engine: judges each answer, notes what was asked.

It wraps the router's handlers, so that it sees the docker CLI's and docker-py's requests as well as a test's
own. A handler that leaves a query parameter of the definition unread has ignored an option: that is a
violation, too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.http import HIJACKED, ApiError, Application, Query, Request, Response, Route, Router
from engine.http.errors import Disconnected
from tests.definition.deviations import INERT
from tests.definition.document import OLDEST, definition
from tests.definition.evidence import COLLECTED, Call
from tests.definition.judge import Answer, violations

__all__ = ["Call", "Observer", "observed"]

STREAMED = 1 << 20  # bytes of a streamed JSON answer that are judged


@dataclass
class Observer:
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    evidence: bool = True  # what is asked here shows what the engine can do

    def judge(self, call: Call, answer: Answer) -> None:
        self.violations += [item for item in violations(answer) if item not in self.violations]
        self.done(call)

    def done(self, call: Call) -> None:
        if self.evidence:
            COLLECTED.request(call)
        if call.status < 400:
            self._unread(call)

    def _unread(self, call: Call) -> None:
        operation = definition(call.version).find(call.method, call.path)
        if operation is not None and call.version >= OLDEST:
            for name in sorted((set(call.query) & set(operation.query)) - call.read):
                if (operation.name, name) not in INERT:
                    self.violations.append(f"{operation.name}: ignored {name}")


class WatchedQuery(Query):
    """Notes which parameters are looked at."""

    def __init__(self, original: Query, read: set[str]) -> None:
        self._values = original._values
        self._read = read

    def __contains__(self, name: str) -> bool:
        self._read.add(name)
        return super().__contains__(name)

    def text(self, name: str, default: str = "") -> str:
        self._read.add(name)
        return super().text(name, default)

    def all(self, name: str) -> list[str]:
        self._read.add(name)
        return super().all(name)

    def flag(self, name: str, *, default: bool = False) -> bool:
        self._read.add(name)
        return super().flag(name, default=default)


class WatchedExchange:
    """Keeps what the handler reads of the body."""

    def __init__(self, exchange: Any, call: Call) -> None:
        self._exchange, self._call = exchange, call

    async def receive(self) -> bytes:
        data: bytes = await self._exchange.receive()
        if len(self._call.body) < STREAMED:
            self._call.body += data
        return data

    async def hijack(self, content_type: str) -> Any:
        self._call.status = 101
        return await self._exchange.hijack(content_type)


class WatchedRouter(Router):
    def __init__(self, router: Router, observer: Observer) -> None:
        self._routes = router._routes
        self._observer = observer

    def find(self, method: str, path: str, version: tuple[int, int]) -> tuple[Route, dict[str, str]]:
        route, match = super().find(method, path, version)

        async def handler(request: Request) -> Response:
            return await self._watch(route, request)

        return dataclasses.replace(route, handler=handler), match

    async def _watch(self, route: Route, request: Request) -> Response:
        call = Call(
            request.method, request.path, request.version, request.query._values, headers=request.headers
        )
        self._observer.calls.append(call)
        request.query = WatchedQuery(request.query, call.read)
        request.exchange = WatchedExchange(request.exchange, call)
        try:
            response = await route.handler(request)
        except ApiError as error:
            if call.status != 101:  # after a hijack nobody gets it
                call.status, call.refusal = error.status, error.message
                body = json.dumps({"message": error.message}).encode() if error.status != 304 else b""
                self._judge(call, {"content-type": "application/json"}, body)
            raise
        except Disconnected:
            raise
        except Exception as error:
            self._observer.violations.append(f"{request.method} {request.path}: {error!r}")
            raise
        if response is HIJACKED:
            self._observer.done(call)
            return response
        call.status = response.status
        headers = {name.lower(): value for name, value in response.headers}
        if isinstance(response.body, bytes):
            self._judge(call, headers, response.body)
        else:
            self._observer.done(call)
            response.body = self._tapped(call, headers, response.body)
        return response

    def _judge(self, call: Call, headers: Mapping[str, str], body: bytes) -> None:
        self._observer.judge(
            call,
            Answer(
                method=call.method,
                path=call.path,
                version=call.version,
                status=call.status,
                headers=headers,
                body=body,
            ),
        )

    async def _tapped(
        self, call: Call, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The same stream; each whole line of JSON in it is judged."""
        judged = headers.get("content-type", "") in ("application/json", "application/x-ndjson")
        seen = 0
        try:
            async for chunk in body:
                if judged and seen < STREAMED and chunk.endswith(b"\n"):
                    seen += len(chunk)
                    self._judge(call, headers, chunk)
                yield chunk
        finally:
            closing = getattr(body, "aclose", None)
            if closing is not None:
                await closing()


def observed(application: Application, observer: Observer) -> Application:
    return dataclasses.replace(application, router=WatchedRouter(application.router, observer))
