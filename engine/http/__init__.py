"""An HTTP/1.1 server for Docker's API: streams both ways, hijacked connections, half-close.

How to add an endpoint
======================
Write a coroutine that takes a :class:`Request` and returns a :class:`Response`,
and add it to the router::

    from engine.http import NotFound, Request, Response, Router, json_response

    def register(router: Router, engine: Engine) -> None:
        async def inspect(request: Request) -> Response:
            name = request.match["name"]
            if name not in engine.things:
                raise NotFound(f"No such thing: {name}")
            return json_response({"Name": name})

        router.add("GET", "/things/{name}/json", inspect)

Patterns: ``{name}`` is one path segment, ``{name...}`` anything with slashes.
The version prefix is gone already; ``request.version`` is ``(1, 50)`` and the
like. ``blocking=True`` marks a route that may wait without bound before it
answers (a lost client cancels it); ``since=(1, 30)`` hides it from older
clients. ``router.refuse("GET POST", "/swarm", "…")`` refuses by name.

Reading: ``request.query.text/flag/integer/all``, ``await request.model(Model)``
(pydantic; a wrong field is a 400 that names it), ``await request.json()``,
``await request.body(limit=…)``, ``async for chunk in request.stream()`` (raw,
back-pressure by not reading), ``request.headers`` (lower-case names).

Answering: ``json_response(value, status)``, ``empty(204)``,
``Response(body=…)``, ``streamed(async_generator)``: headers go out at once,
each chunk is sent as it comes, the generator is closed when the client leaves,
and when it raises the answer is cut (errors inside a JSON stream are messages
of that stream: yield them). ``duplex = await request.hijack()`` takes over the
connection (raw bytes both ways, each half closing on its own); return
``HIJACKED`` when the session is over.

Errors: raise :class:`ApiError` or a subclass from anywhere below a handler; the
client gets its status and ``{"message": …}``. Anything else is a 500 and a
stack in the log.
"""

from engine.http.connection import Application, Connection
from engine.http.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Disconnected,
    Forbidden,
    InternalError,
    NotFound,
    NotModified,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from engine.http.hijack import Duplex
from engine.http.listeners import HttpServer
from engine.http.messages import HIJACKED, Query, Request, Response, empty, json_response, streamed, validated
from engine.http.routing import Route, Router
from engine.http.tls import server_context
from engine.http.transport import Transport
from engine.http.versions import LATEST, OLDEST, version_text

__all__ = [
    "HIJACKED",
    "LATEST",
    "OLDEST",
    "ApiError",
    "Application",
    "BadRequest",
    "Conflict",
    "Connection",
    "Disconnected",
    "Duplex",
    "Forbidden",
    "HttpServer",
    "InternalError",
    "NotFound",
    "NotModified",
    "Query",
    "Request",
    "Response",
    "Route",
    "Router",
    "TooLarge",
    "Transport",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "empty",
    "json_response",
    "server_context",
    "streamed",
    "validated",
    "version_text",
]
