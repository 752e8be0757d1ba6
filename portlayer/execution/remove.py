"""A container goes away, and if we are killed meanwhile, recovery finishes it.

The intent ``removing`` is durable first; each step after it may be repeated.
The VM, which holds the intent, goes last.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.execution.power import Power
from portlayer.execution.record import Intent
from portlayer.execution.states import LIVE, Status, require
from portlayer.hypervisor.base import HypervisorError
from portlayer.portlayer_pb2 import ContainerEvent, Reason

__all__ = ["Remover"]

log = logging.getLogger(__name__)
_REMOVABLE = (Status.CREATED, Status.EXITED, Status.DEAD)


class Remover:
    def __init__(self, house: House, power: Power) -> None:
        self._house = house
        self._power = power

    async def remove(self, container: Container, *, force: bool) -> None:
        """
        Raises:
            PortLayerError: ALREADY_RUNNING without ``force``; or a step failed: the container
                is DEAD and may be removed again.
        """
        if force and (container.live or container.status is Status.RESTARTING):
            await self._end(container)
        async with container.lock:
            if self._house.registry.find(container.id) is not container:
                raise PortLayerError(Reason.NO_SUCH_CONTAINER, f"No such container: {container.id}")
            if container.status in LIVE or container.status is Status.RESTARTING:
                raise PortLayerError(
                    Reason.ALREADY_RUNNING,
                    f"cannot remove container {container.name}: it is {container.status.word}; "
                    "stop it first or remove it by force",
                )
            require(container.name, "remove", container.status, _REMOVABLE)
            container.move(Status.REMOVING)
            try:
                await self._house.save(container, replace(container.record, intent=Intent.REMOVING))
                await self.finish(container)
            except (PortLayerError, HypervisorError, OSError) as error:
                container.problem = f"its removal failed: {error}"
                container.move(Status.DEAD)
                raise

    async def _end(self, container: Container) -> None:
        run = container.run
        try:
            await self._power.end(container)
        except PortLayerError as error:
            if error.reason != Reason.NOT_RUNNING:
                raise
            if run is not None:  # it ended by itself meanwhile: all the better, once it is settled
                await run.ended.wait()

    async def finish(self, container: Container) -> None:
        """All that follows the durable intent; repeatable."""
        house = self._house
        rooms = house.rooms
        await rooms.hypervisor.power_off(container.id)
        await rooms.network.unplug(container.id)
        rooms.network.release(container.id)
        rooms.network.release_ports(container.id)
        await rooms.disks.remove(container.id)
        await rooms.hypervisor.delete(container.id)
        house.registry.forget(container)
        log.info("container %s (%s) removed", container.id[:12], container.name)
        house.announce(container, ContainerEvent.REMOVED)
        container.notify_removed()
