"""The Interaction service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from portlayer.errors import PortLayerError
from portlayer.execution.manager import Execution
from portlayer.interaction import attach, execs, files, logs
from portlayer.interaction.stdin import StdinPumps
from portlayer.portlayer_pb2 import (
    ContainerRef,
    CopyInChunk,
    CopyOutChunk,
    ExecRef,
    InputChunk,
    LogRecord,
    LogsRequest,
    OutputChunk,
    PathRequest,
    Reason,
)
from portlayer.portlayer_pb2_grpc import InteractionServicer
from tether.tether_pb2 import Empty, ExecListReply, ExecState, PathStat

__all__ = ["Interaction"]

T = TypeVar("T")


class Interaction(InteractionServicer):
    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._house = execution.house
        self._pumps = StdinPumps(execution.house)

    async def Attach(self, request: AsyncIterator[InputChunk], context: Any) -> AsyncIterator[OutputChunk]:
        first = await _first(request)
        if not first.HasField("open"):
            raise PortLayerError(Reason.UNSPECIFIED, "an attach begins with `open`")
        container = self._execution.get(first.open.id)
        async for chunk in attach.attach(self._house, self._pumps, container, first.open, request):
            yield chunk

    async def Exec(self, request: AsyncIterator[InputChunk], context: Any) -> AsyncIterator[OutputChunk]:
        first = await _first(request)
        if not first.HasField("exec"):
            raise PortLayerError(Reason.UNSPECIFIED, "an exec begins with `exec`")
        container = self._execution.get(first.exec.id)
        async for chunk in execs.run_exec(self._house, container, first.exec, request):
            yield chunk

    async def ExecInspect(self, request: ExecRef, context: Any) -> ExecState:
        container = self._execution.get(request.id)
        return await execs.exec_inspect(self._house, container, request.exec_id)

    async def Execs(self, request: ContainerRef, context: Any) -> ExecListReply:
        return await execs.exec_list(self._house, self._execution.get(request.id))

    async def Logs(self, request: LogsRequest, context: Any) -> AsyncIterator[LogRecord]:
        container = self._execution.get(request.id)
        async for record in logs.read_logs(self._house, container, request):
            yield record

    async def StatPath(self, request: PathRequest, context: Any) -> PathStat:
        return await files.stat_path(self._house, self._execution.get(request.id), request.path)

    async def CopyOut(self, request: PathRequest, context: Any) -> AsyncIterator[CopyOutChunk]:
        container = self._execution.get(request.id)
        async for piece in files.copy_out(self._house, container, request.path):
            yield CopyOutChunk(data=piece) if isinstance(piece, bytes) else CopyOutChunk(stat=piece)

    async def CopyIn(self, request: AsyncIterator[CopyInChunk], context: Any) -> Empty:
        first = await _first(request)
        await files.copy_in(
            self._house,
            self._execution.get(first.id),
            first.path,
            _data(first, request),
            no_overwrite_dir_non_dir=first.no_overwrite_dir_non_dir,
            copy_uid_gid=first.copy_uid_gid,
        )
        return Empty()


async def _first(request: AsyncIterator[T]) -> T:
    async for message in request:
        return message
    raise PortLayerError(Reason.UNSPECIFIED, "the call ended before its first message")


async def _data(first: CopyInChunk, request: AsyncIterator[CopyInChunk]) -> AsyncIterator[bytes]:
    if first.data:
        yield first.data
    async for chunk in request:
        yield chunk.data
