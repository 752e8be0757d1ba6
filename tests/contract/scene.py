"""Verbs that the contract tests share."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from typing import Any

from portlayer.hypervisor.base import Hypervisor, VmConfig, VmEvent, VmEventKind, VmInfo
from tests.contract.backend import Backend
from tests.contract.guest import Guest

__all__ = ["Scene", "next_event"]


class Scene:
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.hypervisor: Hypervisor = backend.hypervisor()
        self._names = (f"vm-{number}" for number in itertools.count(1))

    def config(self, **words: Any) -> VmConfig:
        return VmConfig(
            **{"id": secrets.token_hex(32), "name": next(self._names), "memory_mib": 192, **words}
        )

    async def create(self, **words: Any) -> VmInfo:
        return await self.hypervisor.create(self.config(**words))

    async def started(self, **words: Any) -> tuple[str, Guest]:
        """A VM whose guest answers."""
        vm = (await self.create(**words)).config.id
        await self.hypervisor.start(vm)
        return vm, await self.guest(vm)

    async def restart(self) -> None:
        """What a restart of the port layer does. VMs keep running meanwhile."""
        await self.hypervisor.close()
        self.hypervisor = self.backend.hypervisor()
        await self.hypervisor.open()

    async def remove_all(self) -> None:
        for info in await self.hypervisor.list():
            await self.hypervisor.power_off(info.config.id)
            await self.hypervisor.delete(info.config.id)

    async def guest(self, vm: str, *, timeout: float = 60) -> Guest:
        return await Guest(*await self.hypervisor.open_channel(vm)).contact(timeout=timeout)


async def next_event(
    events: AsyncIterator[VmEvent], vm: str, kind: VmEventKind, *, timeout: float = 60
) -> VmEvent:
    """The VM's next event, which must be of this kind."""
    async with asyncio.timeout(timeout):
        async for event in events:
            if event.id == vm:
                assert event.kind is kind, event
                return event
    raise AssertionError("the watch ended")
