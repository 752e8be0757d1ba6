"""An administrator has hands: what he does to our VMs becomes the right state and the right event."""

from __future__ import annotations

from typing import Any

import pytest

from portlayer.hypervisor.base import PowerState, VmConfig, VmEventKind
from portlayer.hypervisor.vsphere import VsphereHypervisor
from portlayer.hypervisor.vsphere.hardware import instance_uuid
from tests.contract.scene import next_event
from tests.lab.vcenter import VCenter
from tests.vsphere.place import Place

pytestmark = pytest.mark.lab


def find(admin: VCenter, config: VmConfig) -> Any:
    return admin.content.searchIndex.FindByUuid(None, instance_uuid(config.id), True, False)


async def test_power_is_followed(hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter) -> None:
    events = hypervisor.watch()
    await hypervisor.create(config)
    vm = find(admin, config)
    admin.power_on(vm)
    await next_event(events, config.id, VmEventKind.POWERED_ON)
    admin.wait(vm.SuspendVM_Task())
    await next_event(events, config.id, VmEventKind.SUSPENDED)
    admin.power_on(vm)
    await next_event(events, config.id, VmEventKind.RESUMED)
    admin.wait(vm.PowerOffVM_Task())
    assert (await next_event(events, config.id, VmEventKind.POWERED_OFF)).detail == "power-off"
    assert (await hypervisor.get(config.id)).power is PowerState.OFF


async def test_a_vm_that_somebody_deletes_is_gone(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter
) -> None:
    events = hypervisor.watch()
    await hypervisor.create(config)
    admin.wait(find(admin, config).Destroy_Task())
    await next_event(events, config.id, VmEventKind.REMOVED)
    assert await hypervisor.list() == []
    await hypervisor.delete(config.id)
    await hypervisor.create(config)


async def test_a_new_name_changes_nothing(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter
) -> None:
    info = await hypervisor.create(config)
    admin.wait(find(admin, config).Rename_Task("his own name"))
    assert await hypervisor.list() == [info]
    await hypervisor.start(config.id)
    assert (await hypervisor.get(config.id)).config == config


async def test_a_vm_that_is_registered_again_is_the_same(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter, place: Place
) -> None:
    events = hypervisor.watch()
    info = await hypervisor.create(config)
    vm = find(admin, config)
    path = admin.read(vm, "config.files.vmPathName")
    vm.UnregisterVM()
    admin.wait(admin.folder.RegisterVM_Task(path, None, False, admin.pool, None))
    await hypervisor.start(config.id)
    assert (await next_event(events, config.id, VmEventKind.POWERED_ON)).id == info.config.id
    assert (await hypervisor.get(config.id)).config == config


async def test_an_unregistered_vm_is_not_swept_and_comes_back(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter, place: Place
) -> None:
    events = hypervisor.watch()
    info = await hypervisor.create(config)
    vm = find(admin, config)
    path = admin.read(vm, "config.files.vmPathName")
    vm.UnregisterVM()
    await next_event(events, config.id, VmEventKind.REMOVED)
    other = VsphereHypervisor(place.config)
    await other.open()
    assert await other.list() == []
    await other.close()
    admin.wait(admin.folder.RegisterVM_Task(path, None, False, admin.pool, None))
    third = VsphereHypervisor(place.config)
    await third.open()
    assert await third.list() == [info]
    await third.close()


async def test_a_value_of_somebody_else_disturbs_nobody(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter
) -> None:
    await hypervisor.create(config)
    admin.set_extra(find(admin, config), **{"guestinfo.his": "1"})
    info = await hypervisor.configure(config, version=1)
    assert info.version == 2


async def test_foreign_vms_are_left_alone(
    hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter
) -> None:
    foreign = admin.create("his")
    await hypervisor.create(config)
    assert [info.config.id for info in await hypervisor.list()] == [config.id]
    admin.destroy(foreign)


async def test_no_parent_disk_goes_with_a_vm(
    hypervisor: VsphereHypervisor, config: VmConfig, place: Place
) -> None:
    parent = place.disk("parent")
    child = place.disk("child", parent=parent.path)
    config = VmConfig(id=config.id, name="web", memory_mib=64, disks=(child,))
    await hypervisor.create(config)
    await hypervisor.start(config.id)
    await hypervisor.power_off(config.id)
    await hypervisor.delete(config.id)
    assert parent.path.exists()
    assert child.path.exists()


async def test_listing_asks_nobody(hypervisor: VsphereHypervisor, config: VmConfig, admin: VCenter) -> None:
    await hypervisor.create(config)
    admin.lab.control("GET", "calls?reset=1")
    for _ in range(100):
        await hypervisor.list()
        await hypervisor.get(config.id)
    assert sum(admin.lab.control("GET", "calls").values()) <= 1, "the poll that is under way"
