"""The System service: facts for `docker info`, and the event stream."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from portlayer.execution.house import House
from portlayer.execution.states import LIVE
from portlayer.portlayer_pb2 import EventsSubscription, PortlayerEvent, SystemInfo
from portlayer.portlayer_pb2_grpc import SystemServicer
from portlayer.service.kernel import kernel_release
from tether.tether_pb2 import Empty

__all__ = ["System"]

log = logging.getLogger(__name__)
_MIB = 1 << 20
_OS_RELEASE = Path("/etc/os-release")


class System(SystemServicer):
    def __init__(self, house: House) -> None:
        self._house = house
        self._started_at = house.clock.now()
        self._kernel = _kernel(house.config.guest.kernel)

    async def Info(self, request: Empty, context: Any) -> SystemInfo:
        house = self._house
        config, capabilities = house.config, house.rooms.capabilities
        disk = shutil.disk_usage(config.root)
        host = os.uname()
        return SystemInfo(
            version=version("mooring"),
            vch=config.name,
            vch_id=config.id,
            hypervisor=capabilities.name,
            accelerator=capabilities.accelerator,
            hypervisor_version=capabilities.version,
            machine_profile=capabilities.profile,
            kernel=self._kernel,
            cpus=config.max_cpus or os.cpu_count() or 1,
            memory=config.max_memory_mib * _MIB or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            status=self._status(),
            volume_stores=sorted({"default", *config.volume_stores}),
            image_store=str(config.paths.layers),
            storage_total=disk.total,
            storage_used=disk.used,
            guest_memory_default=config.defaults.memory_mib * _MIB,
            guest_cpus_default=config.defaults.cpus,
            operating_system=_operating_system(),
            architecture=host.machine,
            root=str(config.root),
            started_at=self._started_at,
        )

    def _status(self) -> dict[str, str]:
        config, containers = self._house.config, self._house.registry.all()
        running = sum(container.status in LIVE for container in containers)
        return {
            "Virtual container host": f"{config.name} ({config.id})",
            "Container VMs running": str(running),
            "Container limit": str(config.max_containers or "none"),
            "Memory limit of running VMs": f"{config.max_memory_mib} MiB"
            if config.max_memory_mib
            else "none",
            "CPU limit of running VMs": str(config.max_cpus or "none"),
        }

    async def Events(self, request: EventsSubscription, context: Any) -> AsyncIterator[PortlayerEvent]:
        subscription = self._house.hub.subscribe()
        try:
            yield PortlayerEvent(ready=True, time=self._house.clock.now())
            async for event in subscription:
                yield event
        finally:
            subscription.close()


def _kernel(image: Path) -> str:
    try:
        return kernel_release(image)
    except OSError as error:
        log.warning("the guest's kernel cannot be read: %s", error)
        return ""


def _operating_system() -> str:
    try:
        lines = _OS_RELEASE.read_text().splitlines()
    except OSError:
        return "Linux"
    for line in lines:
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip('"')
    return "Linux"
