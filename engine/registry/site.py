"""A source as one user talks to it: which base URL answers, and who we are there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

import httpx

from engine.registry.authorization import Authorizer
from engine.registry.errors import RegistryUnreachable
from engine.registry.sources import Source
from engine.registry.transport import Transport

__all__ = ["Site"]


class Site:
    def __init__(self, transport: Transport, authorizer: Authorizer, source: Source) -> None:
        self.source = source
        self._transport = transport
        self._authorizer = authorizer
        self._bases = source.bases

    @property
    def base(self) -> str:
        return self._bases[0]

    @contextlib.asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """One answer; the challenge of a first 401 is met, and plain HTTP tried where it may be."""
        for first in (True, False):
            secret = await self._authorizer.headers(scope)
            async with self._open(method, path, headers or {}, secret, content) as response:
                unauthorized = response.status_code == httpx.codes.UNAUTHORIZED
                if first and unauthorized and self._authorizer.challenged(response, scope):
                    continue
                yield response
                return

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        secret: Mapping[str, str],
        content: bytes | None,
    ) -> AsyncIterator[httpx.Response]:
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    response = await stack.enter_async_context(
                        self._transport.request(
                            self.source,
                            method,
                            self.base + path,
                            headers=headers,
                            secret=secret,
                            content=content,
                        )
                    )
                except RegistryUnreachable:
                    if len(self._bases) == 1:
                        raise
                    self._bases = self._bases[1:]
                    continue
                self._bases = self._bases[:1]  # it answers: no other scheme from here on
                yield response
                return
