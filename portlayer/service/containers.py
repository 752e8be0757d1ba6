"""The Containers service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from portlayer.execution.manager import Execution
from portlayer.portlayer_pb2 import (
    CheckpointList,
    CheckpointRequest,
    Container,
    ContainerList,
    ContainerRef,
    ContainerSizeReply,
    ContainerState,
    ContainerStatsRequest,
    CopyOutChunk,
    DiffReply,
    ExportChangesRequest,
    Handle,
    KillRequest,
    ListContainersRequest,
    RemoveContainerRequest,
    ResizeContainerRequest,
    StopRequest,
    UpdateContainerRequest,
    WaitReply,
    WaitRequest,
)
from portlayer.portlayer_pb2_grpc import ContainersServicer
from tether.tether_pb2 import DiagnosticsReply, Empty, Stats, TopReply

__all__ = ["Containers"]


class Containers(ContainersServicer):
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def Open(self, request: ContainerRef, context: Any) -> Handle:
        return self._execution.open_handle(request.id)

    async def Commit(self, request: Handle, context: Any) -> Handle:
        return await self._execution.commit(request)

    async def Get(self, request: ContainerRef, context: Any) -> Container:
        return self._execution.describe(self._execution.get(request.id))

    async def List(self, request: ListContainersRequest, context: Any) -> ContainerList:
        return ContainerList(containers=self._execution.list())

    async def Start(self, request: ContainerRef, context: Any) -> ContainerState:
        return await self._execution.start(request.id)

    async def Stop(self, request: StopRequest, context: Any) -> ContainerState:
        return await self._execution.stop(request)

    async def Kill(self, request: KillRequest, context: Any) -> Empty:
        await self._execution.kill(request.id, request.signal)
        return Empty()

    async def Restart(self, request: StopRequest, context: Any) -> ContainerState:
        return await self._execution.restart(request)

    async def Pause(self, request: ContainerRef, context: Any) -> Empty:
        await self._execution.pause(request.id)
        return Empty()

    async def Unpause(self, request: ContainerRef, context: Any) -> Empty:
        await self._execution.unpause(request.id)
        return Empty()

    async def Update(self, request: UpdateContainerRequest, context: Any) -> Handle:
        return await self._execution.update(request)

    async def Remove(self, request: RemoveContainerRequest, context: Any) -> Empty:
        await self._execution.remove(request.id, force=request.force)
        return Empty()

    async def Wait(self, request: WaitRequest, context: Any) -> AsyncIterator[WaitReply]:
        answer = self._execution.arm_wait(request.id, request.condition)
        try:
            yield WaitReply()
            yield await answer
        finally:
            answer.cancel()

    async def Resize(self, request: ResizeContainerRequest, context: Any) -> Empty:
        await self._execution.resize(request.id, request.exec_id, request.rows, request.columns)
        return Empty()

    async def Top(self, request: ContainerRef, context: Any) -> TopReply:
        return await self._execution.top(request.id)

    async def WatchStats(self, request: ContainerStatsRequest, context: Any) -> AsyncIterator[Stats]:
        async for stats in self._execution.watch_stats(request.id, request.interval):
            yield stats

    async def Size(self, request: ContainerRef, context: Any) -> ContainerSizeReply:
        rw_bytes, root_bytes = await self._execution.size(request.id)
        return ContainerSizeReply(rw_bytes=rw_bytes, root_bytes=root_bytes)

    async def Diff(self, request: ContainerRef, context: Any) -> DiffReply:
        return await self._execution.diff(request.id)

    async def ExportChanges(self, request: ExportChangesRequest, context: Any) -> AsyncIterator[CopyOutChunk]:
        changes = self._execution.export_changes(request.id, pause=request.pause)
        async with aclosing(changes):
            async for data in changes:
                yield CopyOutChunk(data=data)

    async def Checkpoint(self, request: CheckpointRequest, context: Any) -> Empty:
        await self._execution.checkpoint(request)
        return Empty()

    async def Checkpoints(self, request: ContainerRef, context: Any) -> CheckpointList:
        return CheckpointList(names=await self._execution.checkpoints(request.id))

    async def RemoveCheckpoint(self, request: CheckpointRequest, context: Any) -> Empty:
        await self._execution.remove_checkpoint(request)
        return Empty()

    async def StartFromCheckpoint(self, request: CheckpointRequest, context: Any) -> ContainerState:
        return await self._execution.start(request.id, checkpoint=request.name)

    async def Diagnostics(self, request: ContainerRef, context: Any) -> DiagnosticsReply:
        return await self._execution.diagnostics(request.id)
