"""One repository as one user sees it: manifests, blobs, tags.

The first source that has the manifest is the one its blobs come from; the sources behind it stand
in when a blob is missing there. Failures of the network are retried with growing pauses, and a
blob goes on from the byte it was cut at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import httpx

from engine.registry.answers import raise_for
from engine.registry.authorization import Authorizer
from engine.registry.credentials import Credentials
from engine.registry.digest import sha256_digest, verify
from engine.registry.errors import BadContent, RegistryError, RegistryRefused, RegistryUnreachable
from engine.registry.manifest import ACCEPT, MANIFEST_LIMIT, Descriptor
from engine.registry.site import Site
from engine.registry.sources import Source
from engine.registry.transport import Transport, read_limited, unreachable

__all__ = ["ATTEMPTS", "Document", "RegistryClient", "Retry"]

ATTEMPTS = 5  # in a row without a byte of progress
_RECONNECTS = 200  # of one blob, progress or not
_TAGS_LIMIT = 4 << 20
_TAG_PAGES = 100
_CHUNK = 256 << 10

Retry = Callable[[int], Awaitable[None]]  # seconds; waits, and may say so


async def _wait(seconds: int) -> None:
    await asyncio.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A verified manifest or index, byte for byte."""

    media_type: str
    digest: str
    data: bytes


class RegistryClient:
    def __init__(
        self,
        transport: Transport,
        sources: list[Source],
        path: str,
        credentials: Credentials,
    ) -> None:
        self._transport = transport
        self._path = path
        self._scope = f"repository:{path}:pull"
        self._sources = [
            Site(transport, Authorizer(transport, source, credentials), source) for source in sources
        ]
        self._chosen = False

    async def ping(self) -> None:
        """Check that the registry speaks v2 and takes these credentials."""
        site = self._sources[-1]
        async with site.ask("GET", "/v2/", scope="") as response:
            await raise_for(response)

    async def manifest(self, wanted: str, *, retry: Retry = _wait) -> Document:
        """By tag or digest. The first source that has it is kept for what follows."""
        failure: RegistryError | None = None
        for number, site in enumerate(self._sources):
            try:
                found = await self._patiently(site, wanted, retry)
            except RegistryError as error:
                # the last source's word counts, unless a mirror said "not found" and the network then failed
                failure = _clearer(failure, error)
                continue
            if not self._chosen:
                self._sources = self._sources[number:]
                self._chosen = True
            return found
        assert failure is not None
        raise failure

    async def _manifest(self, site: Site, wanted: str) -> Document:
        path = f"/v2/{self._path}/manifests/{wanted}"
        async with site.ask("GET", path, scope=self._scope, headers={"Accept": ACCEPT}) as response:
            await raise_for(response, missing="MANIFEST_UNKNOWN")
            data = await read_limited(response, MANIFEST_LIMIT, f"the manifest {wanted}")
            media_type = response.headers.get("content-type", "")
        if ":" in wanted:
            return Document(
                media_type=media_type, digest=wanted, data=verify(data, wanted, f"the manifest {wanted}")
            )
        return Document(media_type=media_type, digest=sha256_digest(data), data=data)

    async def tags(self) -> list[str]:
        """All tags of the repository, in the registry's order."""
        found: list[str] = []
        site = self._sources[-1]
        path = f"/v2/{self._path}/tags/list"
        for _ in range(_TAG_PAGES):
            async with site.ask("GET", path, scope=self._scope) as response:
                await raise_for(response, missing="NAME_UNKNOWN")
                data = await read_limited(response, _TAGS_LIMIT, "the list of tags")
                following = response.links.get("next", {}).get("url", "")
            try:
                tags = json.loads(data)["tags"]
            except (ValueError, RecursionError, KeyError, TypeError) as error:
                raise BadContent(f"the registry's list of tags is malformed: {error}") from error
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise BadContent("the registry's list of tags is malformed")
            found.extend(tags)
            if not following:
                return found
            if not following.startswith("/v2/"):
                raise BadContent(f"the registry's list of tags goes on elsewhere: {following[:200]!r}")
            path = following
        raise BadContent(f"the registry's list of tags has more than {_TAG_PAGES} pages")

    async def document(self, descriptor: Descriptor, limit: int, what: str, *, retry: Retry = _wait) -> bytes:
        """A small blob, verified."""
        if descriptor.size > limit:
            raise BadContent(f"{what} is larger than {limit} bytes")
        parts = [chunk async for chunk in self.blob(descriptor, retry=retry)]
        return verify(b"".join(parts), descriptor.digest, what)

    async def blob(self, descriptor: Descriptor, *, retry: Retry = _wait) -> AsyncGenerator[bytes, None]:
        """Exactly ``descriptor.size`` bytes, not verified yet: the caller hashes them as they pass."""
        position = failures = reconnects = number = 0
        while position < descriptor.size or descriptor.size == 0:
            before = position
            try:
                async with contextlib.aclosing(
                    self._part(self._sources[number], descriptor, position)
                ) as part:
                    async for chunk in part:
                        position += len(chunk)
                        yield chunk
                return
            except RegistryError as error:
                if _not_found(error) and number + 1 < len(self._sources):
                    number += 1
                    continue
                failures = 1 if position > before else failures + 1
                reconnects += 1
                if not _transient(error) or failures >= ATTEMPTS or reconnects >= _RECONNECTS:
                    raise
                await retry(2 ** (failures - 1))

    async def _part(self, site: Site, descriptor: Descriptor, start: int) -> AsyncGenerator[bytes, None]:
        """From ``start`` to the end; RegistryUnreachable when the connection ends before that."""
        what = f"{site.base}/v2/{self._path}/blobs/{descriptor.digest}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with site.ask(
            "GET", f"/v2/{self._path}/blobs/{descriptor.digest}", scope=self._scope, headers=headers
        ) as response:
            await raise_for(response, missing="BLOB_UNKNOWN")
            skip = _skip(response, start, what)
            position = start - skip
            held: list[bytes] = []  # joined, because each piece costs its way through the pipeline
            size = 0
            failure: Exception | None = None
            try:
                async for data in response.aiter_raw():
                    position += len(data)
                    if position > descriptor.size:
                        raise BadContent(
                            f"the blob {descriptor.digest} is larger than its {descriptor.size} bytes"
                        )
                    held.append(data[skip:])
                    skip = max(skip - len(data), 0)
                    size += len(held[-1])
                    if size >= _CHUNK:
                        yield b"".join(held)
                        held.clear()
                        size = 0
            except (httpx.TransportError, httpx.StreamError) as error:
                failure = error
            if size:  # what came before a cut counts: it is not asked for again
                yield b"".join(held)
            if failure is not None:
                raise unreachable("GET", what, failure) from failure
        if position != descriptor.size:
            raise RegistryUnreachable(
                f'Get "{what}": unexpected EOF at {position} of {descriptor.size} bytes'
            )

    async def _patiently(self, site: Site, wanted: str, retry: Retry) -> Document:
        """Repeat for a server that is overloaded; one that cannot be reached at all is not waited for."""
        for failures in (1, 2):
            try:
                return await self._manifest(site, wanted)
            except RegistryRefused as error:
                if not error.transient or site.source.mirror:
                    raise
            await retry(failures)
        return await self._manifest(site, wanted)


_RANGE = re.compile(r"bytes ([0-9]{1,18})-", re.ASCII)


def _skip(response: httpx.Response, start: int, what: str) -> int:
    """How many bytes come again, because the server does not know ranges."""
    if response.status_code == 206:
        match = _RANGE.match(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != start:
            raise BadContent(f'Get "{what}": the registry sent another range than asked for')
        return 0
    return start


def _not_found(error: RegistryError) -> bool:
    return isinstance(error, RegistryRefused) and error.not_found


def _transient(error: RegistryError) -> bool:
    return isinstance(error, RegistryUnreachable) or (isinstance(error, RegistryRefused) and error.transient)


def _clearer(earlier: RegistryError | None, later: RegistryError) -> RegistryError:
    if earlier is not None and _not_found(earlier) and isinstance(later, RegistryUnreachable):
        assert isinstance(earlier, RegistryRefused)
        return earlier
    return later
