"""Putting blobs and manifests into one repository of one registry.

A blob goes up in pieces; when the connection breaks, the registry is asked how far it has got and
the rest follows from there. It exists only after its digest was checked by the registry.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx

from engine.registry.answers import raise_for
from engine.registry.authorization import Authorizer
from engine.registry.client import ATTEMPTS
from engine.registry.credentials import Credentials
from engine.registry.digest import sha256_digest
from engine.registry.errors import BadContent, RegistryError, RegistryRefused, RegistryUnreachable
from engine.registry.site import Site
from engine.registry.sources import Source
from engine.registry.transport import Transport

__all__ = ["RegistryUploader", "Upload"]

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})", re.ASCII)
T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(kw_only=True)
class Upload:
    """An upload under way: where the next piece goes, and how much has arrived."""

    location: str
    offset: int = 0


class RegistryUploader:
    def __init__(
        self,
        transport: Transport,
        source: Source,
        path: str,
        credentials: Credentials,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._path = path
        self._scope = f"repository:{path}:pull,push"
        self._sleep = sleep
        self._site = Site(transport, Authorizer(transport, source, credentials), source)

    async def has_blob(self, digest: str) -> bool:
        async def ask() -> bool:
            path = f"/v2/{self._path}/blobs/{digest}"
            async with self._site.ask("HEAD", path, scope=self._scope) as response:
                # a refusal has words only where there is a body: the upload that follows gets them
                if response.status_code in (401, 403, 404):
                    return False
                await raise_for(response)
                return True

        return await self._patiently(ask)

    async def mount(self, digest: str, origin: str) -> bool:
        """Take over a blob of the repository ``origin`` of the same registry, if it lets us."""

        async def ask() -> Upload | None:
            query = f"?mount={quote(digest)}&from={quote(origin, safe='')}"
            scope = f"{self._scope} repository:{origin}:pull"
            path = f"/v2/{self._path}/blobs/uploads/{query}"
            async with self._site.ask("POST", path, scope=scope, content=b"") as response:
                if response.status_code == httpx.codes.CREATED:
                    return None
                await raise_for(response)
                return Upload(location=self._location(response))

        try:
            begun = await self._patiently(ask)
        except RegistryRefused:
            return False  # not ours to read: it is uploaded instead
        if begun is None:
            return True
        await self.cancel(begun)
        return False

    async def begin(self) -> Upload:
        async def ask() -> Upload:
            path = f"/v2/{self._path}/blobs/uploads/"
            async with self._site.ask("POST", path, scope=self._scope, content=b"") as response:
                await raise_for(response)
                return Upload(location=self._location(response))

        return await self._patiently(ask)

    async def send(self, upload: Upload, data: bytes) -> None:
        """The next piece. After a broken connection the registry says what of it arrived."""
        start = upload.offset
        failures = 0
        while upload.offset < start + len(data):
            piece = data[upload.offset - start :]
            try:
                await self._piece(upload, piece)
            except RegistryError as error:
                failures += 1
                if not _transient(error) or failures >= ATTEMPTS:
                    raise
                await self._sleep(2 ** (failures - 1))
                await self._resume(upload, start, start + len(data))

    async def _piece(self, upload: Upload, piece: bytes) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{upload.offset}-{upload.offset + len(piece) - 1}",
        }
        async with self._site.ask(
            "PATCH", upload.location, scope=self._scope, headers=headers, content=piece
        ) as response:
            await raise_for(response)
            upload.location = self._location(response)
            upload.offset += len(piece)

    async def _resume(self, upload: Upload, start: int, end: int) -> None:
        async def ask() -> None:
            async with self._site.ask("GET", upload.location, scope=self._scope) as response:
                await raise_for(response)
                upload.location = self._location(response)
                match = _RANGE.fullmatch(response.headers.get("range", ""))
            # "0-0" is also what some registries say of nothing at all
            arrived = int(match[1]) + 1 if match and int(match[1]) else 0
            if not start <= arrived <= end:
                raise BadContent(f"the registry says that {arrived} bytes of the upload arrived")
            upload.offset = arrived

        await self._patiently(ask)

    async def commit(self, upload: Upload, digest: str) -> None:
        """Not repeated: whoever lost the answer asks :meth:`has_blob`."""
        joint = "&" if "?" in upload.location else "?"
        path = f"{upload.location}{joint}digest={quote(digest)}"
        async with self._site.ask("PUT", path, scope=self._scope, content=b"") as response:
            await raise_for(response)

    async def cancel(self, upload: Upload) -> None:
        """What is half up is of no use; a registry that refuses removes it in its own time."""
        async with self._site.ask("DELETE", upload.location, scope=self._scope) as response:
            await response.aread()

    async def put_blob(self, data: bytes, digest: str) -> None:
        """A small one, at once."""
        upload = await self.begin()
        await self.send(upload, data)
        await self.commit(upload, digest)

    async def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Under a tag or digest; its digest."""

        async def ask() -> None:
            path = f"/v2/{self._path}/manifests/{name}"
            headers = {"Content-Type": media_type}
            async with self._site.ask(
                "PUT", path, scope=self._scope, headers=headers, content=data
            ) as response:
                await raise_for(response)

        await self._patiently(ask)
        return sha256_digest(data)

    def _location(self, response: httpx.Response) -> str:
        """Where the upload goes on: on this registry only, whose secrets go along."""
        text = response.headers.get("location", "")
        target = response.request.url.join(text)
        if not text or (target.scheme, target.netloc) != _origin(self._site.base):
            raise BadContent(f"the registry sends the upload elsewhere: {text[:200]!r}")
        return target.raw_path.decode("ascii", "replace")

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat what can be repeated when the network or an overloaded registry fails."""
        for failures in range(1, ATTEMPTS):
            try:
                return await ask()
            except RegistryError as error:
                if not _transient(error):
                    raise
            await self._sleep(2 ** (failures - 1))
        return await ask()


def _origin(base: str) -> tuple[str, bytes]:
    parts = urlsplit(base)
    return parts.scheme, parts.netloc.encode()


def _transient(error: RegistryError) -> bool:
    return isinstance(error, RegistryUnreachable) or (isinstance(error, RegistryRefused) and error.transient)
