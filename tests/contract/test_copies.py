"""Snapshots and clones: what a back end can copy, and what it refuses and why."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets

import pytest

from portlayer.hypervisor.base import Hypervisor, HypervisorError, NotSupported, PowerState, VmEventKind
from tests.contract.scene import Scene, next_event

pytestmark = pytest.mark.system


async def test_a_clone_of_a_running_vm_goes_on_where_its_source_is(
    scene: Scene, hypervisor: Hypervisor
) -> None:
    vm, guest = await scene.started()
    boot = hypervisor.journal(vm).read_bytes()
    events = hypervisor.watch()
    config = dataclasses.replace((await hypervisor.get(vm)).config, id=secrets.token_hex(32), name="clone")
    clone = (await hypervisor.clone(vm, config)).config.id
    assert await guest.ask("ping source") == "pong source", "the source goes on"
    assert (await hypervisor.get(vm)).power is PowerState.ON

    await hypervisor.start(clone)
    await next_event(events, clone, VmEventKind.POWERED_ON)  # and none for the source
    twin = await scene.guest(clone)
    assert await twin.ask("ping twin") == "pong twin"
    assert hypervisor.journal(clone).read_bytes() == b"", "it did not boot"
    assert hypervisor.journal(vm).read_bytes() == boot

    await hypervisor.power_off(clone)
    await hypervisor.start(clone)  # the memory was for one start
    await scene.guest(clone)
    assert hypervisor.journal(clone).read_bytes().startswith(b"booted ")


async def test_a_clone_of_a_stopped_vm_is_a_vm(scene: Scene, hypervisor: Hypervisor) -> None:
    frozen, own = scene.backend.disk("frozen", read_only=True), scene.backend.disk("own")
    source = (await scene.create(disks=(frozen, own))).config
    config = dataclasses.replace(source, id=secrets.token_hex(32), name="clone")
    with pytest.raises(HypervisorError, match="own"):
        await hypervisor.clone(source.id, config)
    config = dataclasses.replace(config, disks=(frozen, scene.backend.disk("other")))
    info = await hypervisor.clone(source.id, config)
    assert (info.config, info.power) == (config, PowerState.OFF)


async def test_a_running_vm_that_writes_to_its_disk_is_not_copied(
    scene: Scene, hypervisor: Hypervisor
) -> None:
    vm, guest = await scene.started(disks=(scene.backend.disk("d"),))
    config = dataclasses.replace((await hypervisor.get(vm)).config, id=secrets.token_hex(32), disks=())
    with pytest.raises(NotSupported, match="writes to a disk"):
        await hypervisor.clone(vm, config)
    with pytest.raises(NotSupported, match="vmdk"):
        await hypervisor.snapshot(vm, "first")
    assert await guest.ask("ping on") == "pong on"
    assert (await hypervisor.get(vm)).power is PowerState.ON
    assert not list(hypervisor.journal(vm).parent.glob("snapshots/*"))


async def test_a_snapshot_holds_what_the_vm_was(scene: Scene, hypervisor: Hypervisor) -> None:
    disk = scene.backend.disk("d")
    vm = (await scene.create(disks=(disk, scene.backend.disk("ro", read_only=True)))).config.id
    await hypervisor.snapshot(vm, "before")
    with pytest.raises(HypervisorError, match="exists"):
        await hypervisor.snapshot(vm, "before")
    with pytest.raises(HypervisorError, match="name"):
        await hypervisor.snapshot(vm, "../escape")
    directory = hypervisor.journal(vm).parent / "snapshots" / "before"
    assert {path.name for path in directory.iterdir()} == {"config.json", "d.vmdk"}
    assert (directory / "d.vmdk").read_bytes() == disk.path.read_bytes()


async def test_a_snapshot_of_a_running_vm_holds_its_memory(scene: Scene, hypervisor: Hypervisor) -> None:
    vm, guest = await scene.started()
    await hypervisor.suspend(vm)
    await hypervisor.snapshot(vm, "paused")
    assert (await hypervisor.get(vm)).power is PowerState.SUSPENDED
    await hypervisor.resume(vm)
    await asyncio.gather(hypervisor.snapshot(vm, "a"), hypervisor.snapshot(vm, "b"))
    assert await guest.ask("ping on", until="pong on") == "pong on"
    kept = {path.name for path in (hypervisor.journal(vm).parent / "snapshots").iterdir()}
    assert kept == {"paused", "a", "b"}
    assert [size > 1 << 20 for size in scene.backend.saved_memory(hypervisor.journal(vm).parent)] == [
        True
    ] * 3
