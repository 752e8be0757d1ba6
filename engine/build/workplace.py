"""A container of one build step: never started for a copy, run to its end for RUN, then removed."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from engine.catalog import ImageRecord
from engine.containers.config import CreateRequest
from engine.containers.create import create_container
from engine.containers.hostconfig import HostConfig
from engine.containers.lifecycle import launch_error
from engine.containers.removal import remove
from engine.context import Engine
from engine.http import InternalError, validated
from engine.images.commit import exported_changes
from engine.images.index import StoredImage
from engine.images.progress import Progress
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["Workplace"]

logger = logging.getLogger(__name__)

_CHUNK = 256 << 10
_DATABASE_LIMIT = 1 << 20
_LINKS_LIMIT = 40
_STREAMS = {pb.OutputChunk.STDOUT: ("", ""), pb.OutputChunk.STDERR: ("\x1b[91m", "\x1b[0m")}


class Workplace:
    """``id`` is the container's. Make it with :meth:`open` and always :meth:`close` it."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self.id = container

    @classmethod
    async def open(
        cls,
        engine: Engine,
        image: StoredImage | None,
        config: Mapping[str, Any],
        host: HostConfig,
        command: Sequence[str],
        *,
        marked: bool,
    ) -> Workplace:
        """``config`` is all that the container gets: the step's image adds nothing. ``marked``: swept
        when this engine dies."""
        body = {
            **{key: value for key, value in config.items() if key not in ("Healthcheck", "OnBuild")},
            "Image": image.id if image is not None else "scratch",
            "Cmd": list(command),
            "Entrypoint": [""],
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": host.kept(),
        }
        record = ImageRecord(id=image.id if image else "", layer=image.top if image else "", config={})
        container = await create_container(
            engine,
            validated(CreateRequest, body),
            "",
            "",
            image=record,
            builder=engine.instance if marked else "",
        )
        return cls(engine, container)

    async def close(self) -> None:
        """Remove it, to the end, whatever happens to the build meanwhile."""
        await finished(self._remove())

    async def _remove(self) -> None:
        handle = pb.Handle(id=self.id)
        found = await self._engine.containers.get(self.id)
        if found is not None:
            handle = found.handle
        try:
            await remove(self._engine, handle, force=True, volumes=True)
        except PortLayerError as error:
            if error.reason not in (pb.NO_SUCH_CONTAINER, pb.REMOVAL_IN_PROGRESS):
                raise

    async def run(self, progress: Progress) -> int:
        """Start, show what it says, and wait for its end: the exit code."""
        port = self._engine.port
        opening = pb.AttachOpen(id=self.id, stdout=True, stderr=True)
        decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _STREAMS}
        async with port.session(port.interaction.Attach) as session:
            await session.send(pb.InputChunk(open=opening))
            if (ready := await session.receive()) is None or ready.stream != pb.OutputChunk.READY:
                raise InternalError("the port layer did not open the attach session")
            try:
                await port.call(port.containers.Start, pb.ContainerRef(id=self.id), timeout=None)
            except PortLayerError as error:
                raise launch_error(error) from error
            while (chunk := await session.receive()) is not None:
                if chunk.stream == pb.OutputChunk.EXITED:
                    await self._off()
                    return chunk.exit_code
                before, after = _STREAMS[chunk.stream]
                text = decoders[chunk.stream].decode(chunk.data)
                if text:
                    await progress.room()
                    progress.text(f"{before}{text}{after}")
        raise InternalError(f"the output of container {self.id} ended before the container")

    async def _off(self) -> None:
        """The process has ended; its VM has, too, when this returns."""
        port = self._engine.port
        request = pb.WaitRequest(id=self.id, condition=pb.WaitRequest.NOT_RUNNING)
        async with contextlib.aclosing(port.stream(port.containers.Wait, request)) as replies:
            async for _ in replies:
                pass

    def changes(self) -> AsyncGenerator[bytes, None]:
        return exported_changes(self._engine.port, self.id, pause=False)

    # -- files
    async def kind(self, path: str) -> str:
        """ "directory", "file" or "" for what is not there; links are followed."""
        for _ in range(_LINKS_LIMIT):
            try:
                found = await self._engine.port.call(
                    self._engine.port.interaction.StatPath, pb.PathRequest(id=self.id, path=_encoded(path))
                )
            except PortLayerError as error:
                if error.reason in (pb.NO_SUCH_PATH, pb.IS_DIRECTORY_CONFLICT):
                    return ""
                raise
            if not stat.S_ISLNK(found.mode):
                return "directory" if stat.S_ISDIR(found.mode) else "file"
            path = found.link_target.decode("utf-8", "surrogateescape")
        return ""

    async def real(self, path: str) -> str:
        """Where the path leads when it is a link. Raises PortLayerError: NO_SUCH_PATH."""
        found = await self._engine.port.call(
            self._engine.port.interaction.StatPath, pb.PathRequest(id=self.id, path=_encoded(path))
        )
        return found.link_target.decode("utf-8", "surrogateescape") if stat.S_ISLNK(found.mode) else path

    async def fetch(self, path: str) -> AsyncGenerator[bytes, None]:
        """A tar of the path and what is below it."""
        request = pb.PathRequest(id=self.id, path=_encoded(path))
        chunks = self._engine.port.stream(self._engine.port.interaction.CopyOut, request)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                if chunk.data:
                    yield chunk.data

    async def put(self, path: str, data: AsyncIterator[bytes]) -> None:
        """Unpack a tar into an existing directory."""

        async def messages() -> AsyncIterator[pb.CopyInChunk]:
            yield pb.CopyInChunk(id=self.id, path=_encoded(path))
            async for piece in data:
                for start in range(0, len(piece), _CHUNK):
                    yield pb.CopyInChunk(data=piece[start : start + _CHUNK])

        await self._engine.port.upload(self._engine.port.interaction.CopyIn, messages())


async def finished(work: Coroutine[Any, Any, None]) -> None:
    """Wait for ``work`` although we are cancelled, as often as it likes; then be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    task.result()


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
