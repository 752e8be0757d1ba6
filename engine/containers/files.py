"""``docker cp``: GET, HEAD and PUT of ``/containers/{name}/archive``, and ``/export``.

Paths are bytes, resolved by the guest (or on the offline disk), never here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from engine.containers.decompression import decompressed
from engine.containers.lifecycle import event_attributes
from engine.containers.tarnames import BadTar, NameStripper
from engine.context import Engine
from engine.http import (
    BadRequest,
    Conflict,
    InternalError,
    NotFound,
    Request,
    Response,
    Router,
    empty,
    streamed,
)
from engine.rpc import PortLayerError
from engine.timestamps import format_ns
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["go_file_mode", "register"]

STAT_HEADER = "X-Docker-Container-Path-Stat"
CHUNK = 256 * 1024
_TAR = "application/x-tar"

# st_mode's type and special bits -> Go's os.FileMode
_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_SPECIAL = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def register(router: Router, engine: Engine) -> None:
    async def head(request: Request) -> Response:
        path = _path(request)
        container = await engine.containers.find(request.match["name"])
        try:
            found = await engine.port.call(
                engine.port.interaction.StatPath, pb.PathRequest(id=container.handle.id, path=path)
            )
        except PortLayerError as error:
            raise _file_error(error, request, path) from error
        return Response(headers=[(STAT_HEADER, encode_stat(found)), ("Content-Length", "0")])

    async def get(request: Request) -> Response:
        path = _path(request)
        container = await engine.containers.find(request.match["name"])
        chunks = engine.port.stream(
            engine.port.interaction.CopyOut, pb.PathRequest(id=container.handle.id, path=path)
        )
        try:
            first = await anext(chunks)
        except PortLayerError as error:
            raise _file_error(error, request, path) from error
        except StopAsyncIteration:
            raise InternalError("the port layer sent no archive") from None
        _publish(engine, "archive-path", container.handle)
        return streamed(
            _tar(chunks, first), content_type=_TAR, headers=[(STAT_HEADER, encode_stat(first.stat))]
        )

    async def put(request: Request) -> Response:
        path = _path(request)
        container = await engine.containers.find(request.match["name"])
        opening = pb.CopyInChunk(
            id=container.handle.id,
            path=path,
            no_overwrite_dir_non_dir=request.query.flag("noOverwriteDirNonDir"),
            copy_uid_gid=request.query.flag("copyUIDGID"),
        )
        try:
            await engine.port.upload(
                engine.port.interaction.CopyIn, _copy_in(opening, decompressed(request.stream()))
            )
        except PortLayerError as error:
            raise _file_error(error, request, path) from error
        _publish(engine, "extract-to-dir", container.handle)
        return empty(200)

    async def export(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        if container.state.status in (pb.ContainerState.DEAD, pb.ContainerState.REMOVING):
            raise Conflict(f"You cannot export container {container.handle.id} which is being removed")
        chunks = engine.port.stream(
            engine.port.interaction.CopyOut, pb.PathRequest(id=container.handle.id, path=b"/.")
        )
        try:
            first = await anext(chunks)
        except StopAsyncIteration:
            raise InternalError("the port layer sent no archive") from None
        _publish(engine, "export", container.handle)
        return streamed(_relative(_tar(chunks, first)), content_type="application/octet-stream")

    router.add("HEAD", "/containers/{name}/archive", head)
    router.add("GET", "/containers/{name}/archive", get)
    router.add("PUT", "/containers/{name}/archive", put)
    router.add("GET", "/containers/{name}/export", export)


def go_file_mode(mode: int) -> int:
    result = mode & 0o777 | _TYPES.get(stat.S_IFMT(mode), 0)
    for bit, go in _SPECIAL.items():
        if mode & bit:
            result |= go
    return result


def encode_stat(found: tether_pb2.PathStat) -> str:
    """The header: base64 of JSON. Names that are not UTF-8 are shown with replacement characters."""
    value: dict[str, Any] = {
        "name": found.name.decode("utf-8", "replace"),
        "size": found.size,
        "mode": go_file_mode(found.mode),
        "mtime": format_ns(found.mtime),
        "linkTarget": found.link_target.decode("utf-8", "replace"),
    }
    return base64.b64encode(json.dumps(value).encode()).decode()


def _path(request: Request) -> bytes:
    path = request.query.text("path")
    if not path:
        raise BadRequest("bad parameter: 'path' cannot be empty")
    if "\0" in path or len(path) > 65536:
        raise BadRequest("bad parameter: 'path' is not a path")
    return path.encode()


def _file_error(error: PortLayerError, request: Request, path: bytes) -> Exception:
    if error.reason == pb.NO_SUCH_PATH:
        return NotFound(f"Could not find the file {path.decode()} in container {request.match['name']}")
    if error.reason == pb.BAD_LAYER:  # elsewhere a registry's fault, here the client's
        return BadRequest(error.message)
    return error


async def _tar(
    chunks: AsyncGenerator[pb.CopyOutChunk, None], first: pb.CopyOutChunk
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(chunks):
        yield first.data
        async for chunk in chunks:
            yield chunk.data


async def _relative(data: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    stripper = NameStripper()
    async with contextlib.aclosing(data):
        try:
            async for piece in data:
                yield stripper.feed(piece)
            stripper.finish()
        except BadTar as error:
            raise InternalError(f"export: {error}") from error


async def _copy_in(opening: pb.CopyInChunk, data: AsyncIterator[bytes]) -> AsyncIterator[pb.CopyInChunk]:
    yield opening
    async for piece in data:
        for start in range(0, len(piece), CHUNK):
            yield pb.CopyInChunk(data=piece[start : start + CHUNK])


def _publish(engine: Engine, action: str, handle: pb.Handle) -> None:
    engine.events.publish("container", action, handle.id, event_attributes(engine, handle))
