"""``/_ping``: the first thing every client asks, answered without the port layer."""

from __future__ import annotations

from engine.http import Request, Response, Router

__all__ = ["register"]

HEADERS = (
    ("Builder-Version", "1"),  # 2 would promise BuildKit
    ("Swarm", "inactive"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Content-Type", "text/plain; charset=utf-8"),
)


def register(router: Router) -> None:
    async def ping(request: Request) -> Response:
        return Response(headers=HEADERS, body=b"OK")

    async def ping_head(request: Request) -> Response:
        return Response(headers=[*HEADERS, ("Content-Length", "0")])

    router.add("GET", "/_ping", ping)
    router.add("HEAD", "/_ping", ping_head)
