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
    assert await guest.ask("ping on") == "pong on"
    assert (await hypervisor.get(vm)).power is PowerState.ON


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
    for name in ("paused", "a", "b"):
        state = hypervisor.journal(vm).parent / "snapshots" / name / "memory.state"
        assert state.stat().st_size > 1 << 20


async def test_a_vm_goes_on_from_its_snapshot_as_often_as_wanted(
    scene: Scene, hypervisor: Hypervisor
) -> None:
    disk, shared = scene.backend.disk("d"), scene.backend.disk("ro", read_only=True)
    vm, guest = await scene.started(disks=(disk, shared))
    assert await guest.ask("note here") == await guest.ask("put d here") == "done"
    events = hypervisor.watch()
    await hypervisor.snapshot(vm, "first")
    assert (await hypervisor.get(vm)).power is PowerState.ON
    assert await guest.ask("note later") == await guest.ask("put d later") == "done"
    await hypervisor.snapshot(vm, "second", stop=True)
    assert (await next_event(events, vm, VmEventKind.POWERED_OFF)).detail == "power-off"
    assert await hypervisor.snapshots(vm) == ["first", "second"]

    for name, noted in (("first", "here"), ("second", "later"), ("first", "here")):
        await hypervisor.start(vm, snapshot=name)
        guest = await scene.guest(vm)
        assert await guest.ask("noted") == f"noted {noted}"
        assert await guest.ask("get d") == f"got {noted}"
        assert await guest.ask("put d again") == "done"
        assert (await hypervisor.get(vm)).power is PowerState.ON
        await hypervisor.power_off(vm)
    config = (await hypervisor.get(vm)).config
    await hypervisor.configure(
        dataclasses.replace(config, memory_mib=256), version=(await hypervisor.get(vm)).version
    )
    with pytest.raises(NotSupported, match="memory"):
        await hypervisor.start(vm, snapshot="first")
    await hypervisor.delete_snapshot(vm, "first")
    with pytest.raises(HypervisorError, match="first"):
        await hypervisor.start(vm, snapshot="first")
    assert await hypervisor.snapshots(vm) == ["second"]


async def test_who_dies_while_a_vm_stands_still_finds_it_going_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, guest = await scene.started(disks=(scene.backend.disk("d"),))
    assert await guest.ask("put d here") == "done"

    async def die(*arguments: object, **options: object) -> None:
        raise HypervisorError("killed here")

    with monkeypatch.context() as fault:
        fault.setattr("portlayer.hypervisor.qemu.memory._give", die)
        fault.setattr("portlayer.hypervisor.qemu.aside.put_back", die)
        with pytest.raises(HypervisorError, match="killed here"):
            await scene.hypervisor.snapshot(vm, "never")
    await scene.restart()
    assert (await scene.hypervisor.get(vm)).power is PowerState.ON
    guest = await scene.guest(vm)
    assert await guest.ask("get d") == "got here"
    assert await guest.ask("put d on") == "done"
    assert await scene.hypervisor.snapshots(vm) == []
