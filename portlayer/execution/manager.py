"""The one door to execution: what the servicers and the interaction room call.

Everything that changes a container runs to its end even when the caller goes
away (:meth:`House.complete`): a client that hangs up in the middle of a start
leaves a started container or none, never half of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from portlayer.channel import ChannelError
from portlayer.errors import PortLayerError
from portlayer.execution.change import Changer
from portlayer.execution.container import Container
from portlayer.execution.create import Creator
from portlayer.execution.guest import ask, guest_error, running_channel
from portlayer.execution.house import House
from portlayer.execution.picture import disk_of
from portlayer.execution.power import Power
from portlayer.execution.recovery import Recovery
from portlayer.execution.remove import Remover
from portlayer.portlayer_pb2 import (
    CheckpointRequest,
    ContainerState,
    DiffReply,
    Handle,
    Reason,
    StopRequest,
    UpdateContainerRequest,
    WaitReply,
    WaitRequest,
)
from portlayer.portlayer_pb2 import (
    Container as ContainerMessage,
)
from tether.tether_pb2 import (
    DiagnosticsReply,
    Empty,
    ResizeRequest,
    Stats,
    StatsRequest,
    TopReply,
)

__all__ = ["Execution"]

_DRAIN = 5.0


class Execution:
    def __init__(self, house: House) -> None:
        self.house = house
        self._power = Power(house)
        self._creator = Creator(house)
        self._changer = Changer(house)
        self._remover = Remover(house, self._power)
        self._recovery = Recovery(house, self._power, self._remover, self._changer)

    async def open(self) -> None:
        """Recover everything. When this returns, calls can be served."""
        self.house.watcher.open()
        await self._power.supervisor.open()
        await self._recovery.recover()

    def start_policies(self) -> None:
        self._recovery.start_policies()

    async def close(self) -> None:
        """Let go; VMs keep running."""
        await self.house.drain(_DRAIN)
        await self._power.supervisor.close()
        self.house.hub.close()
        self.house.watcher.close()

    def get(self, identifier: str) -> Container:
        return self.house.registry.get(identifier)

    # -- handles
    def open_handle(self, identifier: str) -> Handle:
        return self.get(identifier).handle()

    async def commit(self, handle: Handle) -> Handle:
        if handle.change_version == 0:
            container = await self.house.complete(self._creator.create(handle))
        else:
            container = self.get(handle.id)
            await self.house.complete(self._changer.change(container, handle))
        return container.handle()

    def describe(self, container: Container) -> ContainerMessage:
        rooms = self.house.rooms
        return ContainerMessage(
            handle=container.handle(),
            state=container.state(),
            log_path=str(rooms.hypervisor.journal(container.id)),
            disk_path=str(rooms.disks.path(container.id)),
        )

    def list(self) -> list[ContainerMessage]:
        return [self.describe(container) for container in self.house.registry.all()]

    # -- life
    async def start(self, identifier: str, *, checkpoint: str | None = None) -> ContainerState:
        container = self.get(identifier)
        await self.house.complete(self._power.start(container, checkpoint=checkpoint))
        return container.state()

    async def stop(self, request: StopRequest) -> ContainerState:
        container = self.get(request.id)
        await self.house.complete(self._power.stop(container, signal=request.signal, timeout=request.timeout))
        return container.state()

    async def restart(self, request: StopRequest) -> ContainerState:
        container = self.get(request.id)
        await self.house.complete(
            self._power.restart(container, signal=request.signal, timeout=request.timeout)
        )
        return container.state()

    async def kill(self, identifier: str, signal: int) -> None:
        await self.house.complete(self._power.kill(self.get(identifier), signal=signal))

    async def pause(self, identifier: str) -> None:
        await self.house.complete(self._power.pause(self.get(identifier)))

    async def unpause(self, identifier: str) -> None:
        await self.house.complete(self._power.unpause(self.get(identifier)))

    async def checkpoint(self, request: CheckpointRequest) -> None:
        container = self.get(request.id)
        await self.house.complete(
            self._power.checkpoints.create(container, request.name, leave_running=request.leave_running)
        )

    async def checkpoints(self, identifier: str) -> Sequence[str]:
        return await self._power.checkpoints.names(self.get(identifier))

    async def remove_checkpoint(self, request: CheckpointRequest) -> None:
        container = self.get(request.id)
        await self.house.complete(self._power.checkpoints.remove(container, request.name))

    async def remove(self, identifier: str, *, force: bool) -> None:
        await self.house.complete(self._remover.remove(self.get(identifier), force=force))

    async def update(self, request: UpdateContainerRequest) -> Handle:
        container = self.get(request.id)
        await self.house.complete(self._changer.update(container, request))
        return container.handle()

    def arm_wait(
        self, identifier: str, condition: WaitRequest.Condition.ValueType
    ) -> asyncio.Future[WaitReply]:
        return self.get(identifier).arm_wait(condition)

    # -- questions to the guest
    async def resize(self, identifier: str, exec_id: str, rows: int, columns: int) -> None:
        request = ResizeRequest(exec_id=exec_id, rows=rows, columns=columns)
        timeout = self.house.timeouts.call
        missing = Reason.NO_SUCH_EXEC if exec_id else Reason.NOT_RUNNING
        await ask(
            self.get(identifier), "Resize", request, Empty, call="resize", timeout=timeout, not_found=missing
        )

    async def top(self, identifier: str) -> TopReply:
        timeout = self.house.timeouts.call
        return await ask(
            self.get(identifier), "Top", Empty(), TopReply, call="list processes of", timeout=timeout
        )

    async def diagnostics(self, identifier: str) -> DiagnosticsReply:
        timeout = self.house.timeouts.call
        return await ask(
            self.get(identifier), "Diagnostics", Empty(), DiagnosticsReply, call="diagnose", timeout=timeout
        )

    async def watch_stats(self, identifier: str, interval: int) -> AsyncIterator[Stats]:
        """Samples until the container ends; one sample when ``interval`` is 0."""
        container = self.get(identifier)
        call = "watch"
        channel = running_channel(container, call)
        try:
            async with asyncio.timeout(self.house.timeouts.call):
                stream = await channel.stream("WatchStats", StatsRequest(interval=interval))
        except TimeoutError as error:
            raise PortLayerError(
                Reason.GUEST_LOST, f"cannot {call} container {container.name}: its guest does not answer"
            ) from error
        except ChannelError as error:
            raise guest_error(container, call, error) from error
        async with stream:
            try:
                while body := await stream.receive():
                    yield Stats.FromString(body)
            except ChannelError as error:
                if container.live:
                    raise guest_error(container, call, error) from error

    # -- the disk
    async def size(self, identifier: str) -> tuple[int, int]:
        return await self.house.rooms.disks.size(self.get(identifier).id)

    async def diff(self, identifier: str) -> DiffReply:
        container = self.get(identifier)
        async with disk_of(self.house, self._power, container, call="compare the disk of") as picture:
            changes = await self.house.rooms.disks.diff(container.id, picture=picture)
        reply = DiffReply()
        for path, kind in changes:
            reply.entries.add(path=path, kind=kind)
        return reply

    async def export_changes(self, identifier: str, *, pause: bool) -> AsyncGenerator[bytes, None]:
        """The container's changes as a layer's archive; running, of its disk at one moment."""
        container = self.get(identifier)
        async with disk_of(self.house, self._power, container, call="commit", pause=pause) as picture:
            changes = self.house.rooms.disks.export_diff(container.id, picture=picture)
            async for data in changes:
                yield data
