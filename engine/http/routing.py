"""From method and path to a handler.

Patterns are literal paths with ``{name}`` (one segment) or ``{name...}``
(anything, slashes included: image references). Routes are tried in the order
they were added; the first match wins, so specific ones come first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.http.errors import NotFound, Unsupported
from engine.http.messages import Request, Response

__all__ = ["Handler", "Route", "Router"]

Handler = Callable[[Request], Awaitable[Response]]

_PARAMETER = re.compile(r"\{(\w+)(\.\.\.)?\}")


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str
    pattern: str
    handler: Handler
    blocking: bool = False  # may wait without bound before it answers: a lost client cancels it
    since: tuple[int, int] = (0, 0)  # first API version that has it


class Router:
    def __init__(self) -> None:
        self._routes: list[tuple[Route, re.Pattern[str]]] = []

    @property
    def routes(self) -> list[Route]:
        return [route for route, _ in self._routes]

    def add(
        self,
        method: str,
        pattern: str,
        handler: Handler,
        *,
        blocking: bool = False,
        since: tuple[int, int] = (0, 0),
    ) -> None:
        route = Route(method=method, pattern=pattern, handler=handler, blocking=blocking, since=since)
        self._routes.append((route, _compile(pattern)))

    def refuse(self, methods: str, pattern: str, message: str, *, status: int = 501) -> None:
        """An endpoint of Docker's that we do not have: refused by name."""

        async def handler(request: Request) -> Response:
            raise Unsupported(message, status=status)

        for method in methods.split():
            self.add(method, pattern, handler)

    def find(self, method: str, path: str, version: tuple[int, int]) -> tuple[Route, dict[str, str]]:
        for route, pattern in self._routes:
            if route.method != method or version < route.since:
                continue
            found = pattern.fullmatch(path)
            if found:
                return route, found.groupdict()
        raise NotFound("page not found")


def _compile(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for found in _PARAMETER.finditer(pattern):
        parts.append(re.escape(pattern[end : found.start()]))
        parts.append(f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})")
        end = found.end()
    parts.append(re.escape(pattern[end:]))
    return re.compile("".join(parts), re.DOTALL)
