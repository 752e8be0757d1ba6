"""Many VMs at once."""

from __future__ import annotations

import asyncio

import pytest

from portlayer.hypervisor.base import Hypervisor, PowerState
from tests.contract.scene import Scene

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("backend", ["qemu-fast"], indirect=True)
async def test_fifty_start_answer_survive_a_restart_and_end(scene: Scene, hypervisor: Hypervisor) -> None:
    vms = [(await scene.create(memory_mib=64)).config.id for _ in range(50)]
    infos = await asyncio.gather(*(hypervisor.start(vm) for vm in vms))
    assert {info.power for info in infos} == {PowerState.ON}
    assert len({info.pid for info in infos}) == 50
    for guest in asyncio.as_completed([scene.guest(vm, timeout=600) for vm in vms]):
        await guest
    await scene.restart()
    assert {info.pid for info in await scene.hypervisor.list()} == {info.pid for info in infos}
    await asyncio.gather(*(scene.hypervisor.power_off(vm) for vm in vms))
    assert {info.power for info in await scene.hypervisor.list()} == {PowerState.OFF}
