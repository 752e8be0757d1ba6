"""Power, configuration and existence of a VM."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from portlayer.hypervisor.base import (
    ConcurrentAccess,
    Disk,
    Hypervisor,
    HypervisorError,
    InvalidState,
    LaunchError,
    NoSuchVm,
    PowerState,
    VmEventKind,
)
from tests.contract.scene import Scene, next_event

pytestmark = pytest.mark.system
ON, OFF = VmEventKind.POWERED_ON, VmEventKind.POWERED_OFF


async def test_a_created_vm_is_off_and_listed(scene: Scene, hypervisor: Hypervisor) -> None:
    config = scene.config(extra={"container": b"\x00spec"}, boot_config=b"boot")
    info = await hypervisor.create(config)
    assert (info.config, info.version, info.power, info.pid) == (config, 1, PowerState.OFF, 0)
    assert await hypervisor.list() == [info]
    assert await hypervisor.get(config.id) == info
    assert hypervisor.journal(config.id).read_bytes() == b""


async def test_the_same_id_twice_is_refused_and_changes_nothing(scene: Scene, hypervisor: Hypervisor) -> None:
    info = await scene.create(name="first")
    with pytest.raises(HypervisorError):
        await hypervisor.create(dataclasses.replace(info.config, name="second"))
    assert await hypervisor.list() == [info]


async def test_configure_takes_the_current_version_only(scene: Scene, hypervisor: Hypervisor) -> None:
    config = (await scene.create()).config
    changed = dataclasses.replace(config, name="renamed", extra={"intent": b"running"})
    second = await hypervisor.configure(changed, version=1)
    assert (second.config, second.version) == (changed, 2)
    with pytest.raises(ConcurrentAccess):
        await hypervisor.configure(config, version=1)
    assert (await hypervisor.get(config.id)) == second


async def test_of_two_changes_to_one_version_one_wins(scene: Scene, hypervisor: Hypervisor) -> None:
    config = (await scene.create()).config
    changes = [dataclasses.replace(config, name=name) for name in ("left", "right")]
    results = await asyncio.gather(
        *(hypervisor.configure(change, version=1) for change in changes), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["ConcurrentAccess", "VmInfo"]


async def test_calls_for_an_unknown_vm_say_so(hypervisor: Hypervisor) -> None:
    unknown = "f" * 64
    for call in (
        hypervisor.get,
        hypervisor.start,
        hypervisor.power_off,
        hypervisor.suspend,
        hypervisor.console,
    ):
        with pytest.raises(NoSuchVm):
            await call(unknown)
    await hypervisor.delete(unknown)


async def test_from_start_to_the_guests_own_power_off(scene: Scene, hypervisor: Hypervisor) -> None:
    events = hypervisor.watch()
    secret = bytes(range(256)) * 8
    vm = (await scene.create(boot_config=secret, vcpus=2)).config.id
    info = await hypervisor.start(vm)
    assert info.power is PowerState.ON
    await next_event(events, vm, ON)
    guest = await scene.guest(vm)
    assert await guest.boot_config() == secret
    with pytest.raises(InvalidState):
        await hypervisor.start(vm)
    with pytest.raises(InvalidState):
        await hypervisor.resume(vm)
    with pytest.raises(InvalidState):
        await hypervisor.delete(vm)

    guest.tell("off")
    assert (await next_event(events, vm, OFF)).detail == "guest-shutdown"
    assert (await hypervisor.get(vm)).power is PowerState.OFF
    for call in (hypervisor.suspend, hypervisor.resume, hypervisor.open_channel):
        with pytest.raises(InvalidState):
            await call(vm)

    await hypervisor.start(vm)  # and once more: the journal goes on where it was
    await next_event(events, vm, ON)
    await scene.guest(vm)
    await hypervisor.power_off(vm)
    assert (await next_event(events, vm, OFF)).detail == "power-off"
    await hypervisor.power_off(vm)
    boots = hypervisor.journal(vm).read_bytes().split()
    assert boots[::2] == [b"booted", b"booted"]
    assert boots[1] != boots[3]

    await hypervisor.delete(vm)
    await next_event(events, vm, VmEventKind.REMOVED)
    await hypervisor.delete(vm)
    with pytest.raises(NoSuchVm):
        await hypervisor.get(vm)


async def test_a_suspended_guest_does_not_run(scene: Scene, hypervisor: Hypervisor) -> None:
    events = hypervisor.watch()
    vm, guest = await scene.started()
    await next_event(events, vm, ON)
    await hypervisor.suspend(vm)
    await next_event(events, vm, VmEventKind.SUSPENDED)
    assert (await hypervisor.get(vm)).power is PowerState.SUSPENDED
    with pytest.raises(TimeoutError):
        await guest.ask("ping x", timeout=0.5)
    with pytest.raises(InvalidState):
        await hypervisor.suspend(vm)
    with pytest.raises(InvalidState, match="suspended"):
        await hypervisor.remove_nic(vm, "mt1")
    await hypervisor.resume(vm)
    await next_event(events, vm, VmEventKind.RESUMED)
    assert await guest.ask("ping y", until="pong y") == "pong y"
    await hypervisor.suspend(vm)
    await hypervisor.power_off(vm)  # a suspended VM can be cut off, too
    await next_event(events, vm, VmEventKind.SUSPENDED)
    await next_event(events, vm, OFF)


async def test_a_start_that_fails_says_why_and_leaves_the_vm_off(
    scene: Scene, hypervisor: Hypervisor
) -> None:
    missing = scene.backend.disk("gone")
    missing.path.unlink()
    events = hypervisor.watch()
    vm = (await scene.create(disks=(missing,))).config.id
    with pytest.raises(LaunchError, match=r"gone\.vmdk.*No such file"):
        await hypervisor.start(vm)
    assert (await hypervisor.get(vm)).power is PowerState.OFF
    scene.backend.disk("gone")
    await hypervisor.start(vm)
    await next_event(events, vm, ON)  # the failed start was no event


async def test_a_disk_that_another_vm_writes_is_not_shared(scene: Scene, hypervisor: Hypervisor) -> None:
    disk = scene.backend.disk("shared")
    first, second = [(await scene.create(disks=(disk,))).config.id for _ in range(2)]
    await hypervisor.start(first)
    with pytest.raises(LaunchError, match="lock"):
        await hypervisor.start(second)
    await hypervisor.power_off(first)
    await hypervisor.start(second)


async def test_a_killed_hypervisor_process_is_a_crash(scene: Scene, hypervisor: Hypervisor) -> None:
    events = hypervisor.watch()
    vm = (await scene.create()).config.id
    info = await hypervisor.start(vm)
    await next_event(events, vm, ON)
    scene.backend.kill(info)
    assert (await next_event(events, vm, OFF)).detail.startswith("crashed: ")
    assert (await hypervisor.get(vm)).power is PowerState.OFF
    await hypervisor.start(vm)


async def test_a_guest_that_panics_is_a_crash_with_its_words(scene: Scene, hypervisor: Hypervisor) -> None:
    events = hypervisor.watch()
    vm, guest = await scene.started()
    await next_event(events, vm, ON)
    guest.tell("panic")
    detail = (await next_event(events, vm, OFF)).detail
    assert detail.startswith("crashed: ")
    assert "Kernel panic" in (await hypervisor.console(vm)).decode()


async def test_many_start_at_once(scene: Scene, hypervisor: Hypervisor) -> None:
    vms = [(await scene.create(memory_mib=96)).config.id for _ in range(6)]
    await asyncio.gather(*(hypervisor.start(vm) for vm in vms))
    assert {info.power for info in await hypervisor.list()} == {PowerState.ON}
    await asyncio.gather(*(hypervisor.power_off(vm) for vm in vms))
    assert {info.power for info in await hypervisor.list()} == {PowerState.OFF}


async def test_a_cancelled_start_ends_in_one_state_or_the_other(scene: Scene, hypervisor: Hypervisor) -> None:
    vm = (await scene.create()).config.id
    starting = asyncio.ensure_future(hypervisor.start(vm))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await hypervisor.power_off(vm)  # waits for its turn
    assert (await hypervisor.get(vm)).power is PowerState.OFF


async def test_missing_read_only_disk_is_not_created(scene: Scene, hypervisor: Hypervisor) -> None:
    disk = Disk(id="ro", path=scene.backend.disk("ro").path.with_name("never.vmdk"), read_only=True)
    vm = (await scene.create(disks=(disk,))).config.id
    with pytest.raises(LaunchError):
        await hypervisor.start(vm)
    assert not disk.path.exists()
