"""Checkpoints: a running container's memory, devices and own disk, to go on from later.

A VM's memory and its disk are one: what its kernel has cached must be what the
disk holds. So a checkpoint has a copy of the container's disk, and going on from
it turns the disk back. A volume is not the container's to turn back: with a
writable one there is no checkpoint. The hypervisor keeps checkpoints with the
VM, as snapshots.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from portlayer.channel import ChannelError
from portlayer.errors import PortLayerError
from portlayer.execution.boot import read_only_volumes
from portlayer.execution.container import Container, Run
from portlayer.execution.house import House
from portlayer.execution.states import Status, require
from portlayer.hypervisor.base import InvalidState
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Empty, EntropyRequest, TimeSetReply, TimeSetRequest, UpdateRequest

__all__ = ["Checkpoints", "catch_up"]

log = logging.getLogger(__name__)
_SEED_BYTES = 64


class Checkpoints:
    def __init__(self, house: House) -> None:
        self._house = house

    async def names(self, container: Container) -> Sequence[str]:
        return await self._house.rooms.hypervisor.snapshots(container.id)

    async def require(self, container: Container, name: str) -> None:
        """
        Raises:
            PortLayerError: NO_SUCH_CHECKPOINT
        """
        if name not in await self.names(container):
            raise PortLayerError(
                Reason.NO_SUCH_CHECKPOINT, f"checkpoint {name} does not exist for container {container.name}"
            )

    async def create(self, container: Container, name: str, *, leave_running: bool) -> None:
        """Without ``leave_running`` the container ends, at the very moment that the checkpoint holds.

        Raises:
            PortLayerError: NAME_IN_USE, NOT_SUPPORTED; the container runs on.
        """
        async with container.lock:
            require(container.name, "checkpoint", container.status, (Status.RUNNING,))
            run = container.run
            if run is None:
                raise self._just_ended(container)
            await self._check(container, name)
            before = run.killed, run.restart_cancelled
            if not leave_running:
                run.killed = run.restart_cancelled = True
            try:
                await self._house.rooms.hypervisor.snapshot(container.id, name, stop=not leave_running)
            except InvalidState as error:
                raise self._just_ended(container) from error
            except BaseException:
                run.killed, run.restart_cancelled = before
                raise
        if leave_running:
            await catch_up(self._house, container, run)
        else:
            await run.ended.wait()

    async def _check(self, container: Container, name: str) -> None:
        if name in await self.names(container):
            raise PortLayerError(
                Reason.NAME_IN_USE,
                f"checkpoint with name {name} already exists for container {container.name}",
            )
        writable = [volume for volume, ro in read_only_volumes(container.spec.mounts).items() if not ro]
        if writable:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"container {container.name} writes to volume {writable[0]}: a checkpoint holds memory and "
                "disk as one, and a volume could not be turned back",
            )

    async def remove(self, container: Container, name: str) -> None:
        async with container.lock:
            await self.require(container, name)
            await self._house.rooms.hypervisor.delete_snapshot(container.id, name)

    def _just_ended(self, container: Container) -> PortLayerError:
        return PortLayerError(Reason.NOT_RUNNING, f"container {container.name} has just ended")


async def catch_up(house: House, container: Container, run: Run) -> None:
    """A guest stood still: its clock did, its limits may have been changed, its twin may draw its numbers."""
    assert run.channel is not None
    patience = house.timeouts.signal
    try:
        now = TimeSetRequest(time=house.clock.now())
        await run.channel.call("TimeSet", now, TimeSetReply, timeout=patience)
        limits = UpdateRequest(resources=container.spec.resources)
        await run.channel.call("Update", limits, Empty, timeout=patience)
        seed = EntropyRequest(seed=os.urandom(_SEED_BYTES))
        await run.channel.call("Entropy", seed, Empty, timeout=patience)
    except ChannelError as error:
        log.warning("container %s: clock, limits or entropy were not set: %s", container.id[:12], error)
