"""A new hypervisor over the same state: what a restarted port layer finds."""

from __future__ import annotations

import pytest

from portlayer.hypervisor.base import PowerState, VmEventKind
from tests.contract.scene import Scene, next_event

pytestmark = pytest.mark.system


async def test_vms_are_found_as_they_are_and_can_be_worked_with(scene: Scene) -> None:
    running, _ = await scene.started(disks=(scene.backend.disk("d"),))
    suspended, _ = await scene.started(extra={"intent": b"\xff"})
    await scene.hypervisor.suspend(suspended)
    stopped = (await scene.create(boot_config=b"b")).config.id
    before = {info.config.id: info for info in await scene.hypervisor.list()}
    watching = scene.hypervisor.watch()

    await scene.restart()
    assert [event async for event in watching] == [], "a restart is no event of a VM"
    assert {info.config.id: info for info in await scene.hypervisor.list()} == before
    assert before[running].power is PowerState.ON
    assert before[suspended].power is PowerState.SUSPENDED
    assert before[stopped].power is PowerState.OFF

    hypervisor = scene.hypervisor
    events = hypervisor.watch()
    guest = await scene.guest(running)
    assert set(await guest.disks()) == {"d"}
    await hypervisor.add_disk(running, scene.backend.disk("e"))
    await hypervisor.remove_disk(running, "d")
    await guest.ask("journal 0 10")
    assert hypervisor.journal(running).read_bytes().endswith(b"%015d\n" % 9)
    await hypervisor.resume(suspended)
    await next_event(events, suspended, VmEventKind.RESUMED)
    await scene.guest(suspended)
    guest.tell("off")
    assert (await next_event(events, running, VmEventKind.POWERED_OFF)).detail == "guest-shutdown"
    await hypervisor.power_off(suspended)
    assert (await next_event(events, suspended, VmEventKind.POWERED_OFF)).detail == "power-off"


async def test_a_vm_that_ended_while_nobody_watched_is_off(scene: Scene) -> None:
    vm = (await scene.create()).config.id
    info = await scene.hypervisor.start(vm)
    await scene.hypervisor.close()
    scene.backend.kill(info)
    scene.hypervisor = scene.backend.hypervisor()
    await scene.hypervisor.open()
    scene.backend.reap(info)
    assert (await scene.hypervisor.get(vm)).power is PowerState.OFF
    await scene.hypervisor.start(vm)


async def test_configuration_survives(scene: Scene) -> None:
    config = scene.config(
        vcpus=3,
        disks=(scene.backend.disk("a"), scene.backend.disk("b", read_only=True)),
        boot_config=bytes(range(256)),
        extra={"container": bytes(range(256)), "intent": b""},
    )
    await scene.hypervisor.create(config)
    info = await scene.hypervisor.configure(config, version=1)
    await scene.restart()
    assert await scene.hypervisor.list() == [info]
