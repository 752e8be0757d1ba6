"""A container comes into being: everything, or nothing that a restart does not sweep.

validate → name and ID → volumes and layer exist → addresses → disk → VM. The VM
is the durable point: before it the container is in memory only (its disk, if
already made, belongs to no VM and is swept at the next start-up).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from portlayer.execution.claims import has_static_address, unassign
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.execution.record import Intent, Record
from portlayer.execution.sizing import guest_size
from portlayer.execution.states import Status
from portlayer.execution.validate import check_handle, check_spec
from portlayer.hypervisor.base import VmConfig
from portlayer.portlayer_pb2 import ContainerEvent, ContainerSpec, Handle

__all__ = ["Creator", "allocate_endpoints"]

log = logging.getLogger(__name__)


def allocate_endpoints(house: House, container: str, spec: ContainerSpec, networks: set[str]) -> None:
    """Fill ``assigned_*`` of the endpoints on ``networks``.

    A static address is only checked: it is claimed when the container starts.

    Raises:
        PortLayerError: the caller releases what was allocated.
    """
    for endpoint in spec.endpoints:
        if endpoint.network not in networks:
            continue
        if has_static_address(endpoint):
            house.rooms.network.get(endpoint.network)
            endpoint.CopyFrom(unassign(endpoint))
        else:
            endpoint.CopyFrom(house.rooms.network.allocate(container, spec.name, unassign(endpoint)))


class Creator:
    def __init__(self, house: House) -> None:
        self._house = house

    async def create(self, handle: Handle) -> Container:
        """
        Raises:
            PortLayerError: nothing of the container exists.
        """
        house = self._house
        check_handle(handle)
        check_spec(handle.spec, house.rooms.capabilities)
        size = guest_size(handle.spec.resources, house.config.defaults)
        spec = ContainerSpec()
        spec.CopyFrom(handle.spec)
        spec.created_at = spec.created_at or house.clock.now()
        spec.disk_size = spec.disk_size or house.config.defaults.disk_bytes
        container = Container(handle.id, Record(spec=spec, intent=Intent.CREATED), Status.CREATED)
        async with AsyncExitStack() as undo:
            house.registry.reserve(container)
            undo.callback(house.registry.abandon, container)
            house.require_volumes(container, spec)
            if spec.layer:
                house.rooms.images.get(spec.layer)
            undo.callback(house.rooms.network.release, container.id)
            allocate_endpoints(house, container.id, spec, {e.network for e in spec.endpoints})
            undo.push_async_callback(self._undo, container, house.rooms.disks.remove, container.id)
            await house.rooms.disks.create(container.id, layer=spec.layer, disk_bytes=spec.disk_size)
            config = VmConfig(
                id=container.id,
                name=spec.name,
                vcpus=size.vcpus,
                memory_mib=size.memory_mib,
                disks=house.vm_disks(container),
                extra=container.record.to_extra(),
            )
            undo.push_async_callback(self._undo, container, house.rooms.hypervisor.delete, container.id)
            container.vm = await house.rooms.hypervisor.create(config)
            house.registry.publish(container)
            undo.pop_all()
        log.info("container %s (%s) created", container.id[:12], container.name)
        house.announce(container, ContainerEvent.CREATED)
        return container

    async def _undo(self, container: Container, step: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """One step back; if it fails, the others must still happen, and the next start-up sweeps."""
        try:
            await step(*arguments)
        except Exception:
            log.exception("container %s: a failed create could not be taken back fully", container.id[:12])
