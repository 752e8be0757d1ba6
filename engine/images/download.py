"""What is fetched by URL: an import, ADD, a remote context. By the daemon's proxies, within limits."""

from __future__ import annotations

import asyncio
import email.utils
import posixpath
import tarfile
import time
from urllib.parse import unquote, urlsplit

import httpx

from engine.http import ApiError, BadRequest
from engine.images.spool import SpoolFile
from engine.registry.errors import RegistryError
from engine.registry.sources import Source, host_of, is_loopback
from engine.registry.transport import Transport

__all__ = ["fetch", "fetch_raw"]

_LIMIT = 1 << 36


async def fetch(transport: Transport, url: str, target: str, spool: SpoolFile) -> str:
    """The file as a tar of one entry; its name: that of the URL, or of the target."""
    path = unquote(urlsplit(url).path)
    name = posixpath.basename(path)
    if not name and target.endswith("/"):
        raise BadRequest(f"cannot determine filename from url: {url[:500]}")
    name = name or posixpath.basename(target)
    spool.append(bytes(tarfile.BLOCKSIZE))  # for the header, which needs the size
    modified = await fetch_raw(transport, url, spool)
    info = tarfile.TarInfo(name[:100])
    info.size = spool.size - tarfile.BLOCKSIZE
    info.mode = 0o600
    info.mtime = modified
    spool.append(bytes(-spool.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))
    spool.overwrite(0, info.tobuf(tarfile.GNU_FORMAT))
    return info.name


async def fetch_raw(transport: Transport, url: str, spool: SpoolFile) -> int:
    """The body behind what ``spool`` has; when it was last modified."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadRequest(f"not a URL to download from: {url[:500]!r}")
    origin = f"{parts.scheme}://{parts.netloc}"
    source = Source(
        domain=parts.netloc, bases=(origin,), loopback=is_loopback(host_of(parts.netloc.rpartition("@")[2]))
    )
    start = spool.size
    try:
        async with transport.request(source, "GET", url) as response:
            if response.is_error:
                raise BadRequest(
                    f"failed to GET {url[:500]} with status {response.status_code} {response.reason_phrase}: "
                )
            async for chunk in response.aiter_raw():
                await asyncio.to_thread(spool.append, chunk)
                if spool.size - start > _LIMIT:
                    raise BadRequest(f"{url[:500]} is larger than {_LIMIT} bytes")
            stamp = response.headers.get("last-modified", "")
    except RegistryError as error:
        raise ApiError(str(error)) from error
    except (httpx.TransportError, httpx.StreamError) as error:
        raise ApiError(f'Get "{url[:500]}": {error}') from error
    parsed = email.utils.parsedate_to_datetime(stamp) if stamp else None
    return int(parsed.timestamp()) if parsed is not None else int(time.time())
