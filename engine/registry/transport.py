"""HTTP towards registries: redirects, proxies and TLS, with one rule for secrets.

**A header that authenticates goes to the origin it was made for and no further**: a redirect to
another origin is followed without it, and never from https to plain http unless the registry is
marked insecure. Answers are streams; whoever opens one closes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx

from engine.registry.errors import BadContent, RegistryUnreachable
from engine.registry.sources import Source

__all__ = ["Transport", "read_limited"]

_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(connect=10, read=60, write=60, pool=None)
_LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=20)


class Transport:
    """Connections of one engine, shared by all pulls; no cookies, no state of any user."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        for name in ("httpx", "httpcore"):  # they log whole URLs, and those of redirects hold signatures
            logging.getLogger(name).setLevel(logging.WARNING)
        self._clients: dict[tuple[bool, bool], httpx.AsyncClient] = {}

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    def _client(self, source: Source) -> httpx.AsyncClient:
        key = (source.insecure, source.loopback)
        if key not in self._clients:
            context = ssl.create_default_context()
            if source.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._clients[key] = httpx.AsyncClient(
                verify=context,
                timeout=_TIMEOUT,
                limits=_LIMITS,
                follow_redirects=False,
                # HTTP(S)_PROXY of the daemon's environment, as dockerd; never for this machine itself
                trust_env=not source.loopback,
                headers={"User-Agent": self._agent, "Accept-Encoding": "identity"},
            )
        return self._clients[key]

    @contextlib.asynccontextmanager
    async def request(
        self,
        source: Source,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        secret: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """One answer, its body unread. ``secret`` are the headers bound to ``url``'s origin."""
        request = _Request(
            method=method, url=_url(url), headers=headers or {}, content=content, secret=secret or {}
        )
        response = await self._follow(source, request)
        try:
            yield response
        finally:
            await response.aclose()

    async def _follow(self, source: Source, request: _Request) -> httpx.Response:
        client = self._client(source)
        url = request.url
        what = f'{request.method.capitalize()} "{url}"'
        for _ in range(_REDIRECTS + 1):
            secret = request.secret if _same_origin(url, request.url) else {}
            wire = client.build_request(
                request.method, url, headers={**request.headers, **secret}, content=request.content
            )
            try:
                response = await client.send(wire, stream=True)
            except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
                raise unreachable(request.method, str(url), error) from error
            client.cookies.clear()
            if not response.has_redirect_location:
                return response
            await response.aclose()
            if request.content is not None:  # a body may hold a secret, and no registry redirects a POST
                raise BadContent(f"{what}: refused a redirect of a {request.method}")
            url = _target(url, response.headers["location"], what, plain=source.insecure)
        raise BadContent(f"{what}: stopped after {_REDIRECTS} redirects")


@dataclass(frozen=True, kw_only=True)
class _Request:
    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: bytes | None
    secret: Mapping[str, str]


def _target(url: httpx.URL, location: str, what: str, *, plain: bool) -> httpx.URL:
    try:
        target = url.join(location)
    except httpx.InvalidURL as error:
        raise BadContent(f"{what}: invalid redirect: {error}") from error
    if target.scheme not in ("https", "http") or not target.host:
        raise BadContent(f"{what}: invalid redirect to {str(target)[:200]!r}")
    if target.scheme == "http" and url.scheme == "https" and not plain:
        raise BadContent(f"{what}: refused a redirect from https to http")
    return target


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL as error:
        raise BadContent(f"invalid URL {text[:200]!r}: {error}") from error


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def unreachable(method: str, url: str, error: Exception) -> RegistryUnreachable:
    """In the words Docker's users know, where the operating system gave the reason."""
    cause: BaseException | None = error
    words = str(error) or type(error).__name__
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            words = f"dial tcp: lookup {httpx.URL(url).host}: {(cause.strerror or '').lower()}"
        elif isinstance(cause, ssl.SSLError):
            words = f"tls: {cause.reason or cause}"
        elif isinstance(cause, OSError) and cause.errno:
            words = f"dial tcp {httpx.URL(url).netloc.decode()}: connect: {os.strerror(cause.errno).lower()}"
        cause = cause.__cause__ or cause.__context__
    return RegistryUnreachable(f'{method.capitalize()} "{url}": {words}')


async def read_limited(response: httpx.Response, limit: int, what: str) -> bytes:
    """The whole body, or BadContent beyond ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > limit:
                raise BadContent(f"{what} is larger than {limit} bytes")
            parts.append(chunk)
    except (httpx.TransportError, httpx.StreamError) as error:
        raise unreachable(response.request.method, str(response.request.url), error) from error
    return b"".join(parts)
