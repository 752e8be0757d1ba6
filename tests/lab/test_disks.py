"""VMDKs: real files, parents, unit numbers, locks, and the disk manager."""

from __future__ import annotations

import subprocess

import pytest
from pyVmomi import vim

from tests.lab.process import LabProcess
from tests.lab.vcenter import Device, VCenter, disk, existing_disk, pvscsi, remove


def create_disk(vcenter: VCenter, name: str, *, mib: int = 16) -> None:
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=mib * 1024
    )
    vcenter.wait(vcenter.content.virtualDiskManager.CreateVirtualDisk_Task(name, vcenter.datacenter, spec))


def backing(vcenter: VCenter, vm: object) -> list[object]:
    return [d.backing for d in vcenter.devices(vm, Device.VirtualDisk)]


def test_a_child_disk_shows_its_parents(lab: LabProcess, vcenter: VCenter) -> None:
    create_disk(vcenter, "[LocalDS_0] base.vmdk")
    vm = vcenter.create("chain", pvscsi(), disk("[LocalDS_0] one.vmdk", parent="[LocalDS_0] base.vmdk"))
    vcenter.reconfigure(
        vm, disk("[LocalDS_0] two.vmdk", controller=1000, unit=-1, parent="[LocalDS_0] one.vmdk")
    )
    one, two = vcenter.devices(vm, Device.VirtualDisk)
    assert one.backing.parent.fileName == "[LocalDS_0] base.vmdk"
    assert two.unitNumber == 1
    assert two.capacityInKB == 16 * 1024
    assert two.backing.parent.fileName == "[LocalDS_0] one.vmdk"
    assert two.backing.parent.parent.fileName == "[LocalDS_0] base.vmdk"
    image = subprocess.run(
        ["qemu-img", "info", lab.datastore / "two.vmdk"], check=True, capture_output=True, text=True
    )
    assert f"backing file: {lab.datastore / 'one.vmdk'}" in image.stdout


def test_a_parent_must_exist(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("orphan", pvscsi())
    with pytest.raises(vim.fault.FileNotFound) as caught:
        vcenter.reconfigure(
            vm, disk("[LocalDS_0] o.vmdk", controller=1000, parent="[LocalDS_0] nowhere.vmdk")
        )
    assert caught.value.file == "[LocalDS_0] nowhere.vmdk"
    assert not (lab.datastore / "o.vmdk").exists()


@pytest.mark.parametrize("unit", [7, 64, 200])
def test_impossible_units_are_refused(vcenter: VCenter, unit: int) -> None:
    vm = vcenter.create(f"unit{unit}", pvscsi())
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        vcenter.reconfigure(vm, disk(controller=1000, unit=unit))


def test_units_are_chosen_around_the_controllers_own(vcenter: VCenter) -> None:
    vm = vcenter.create("units", pvscsi(), *[disk(unit=-1) for _ in range(9)])
    assert [d.unitNumber for d in vcenter.devices(vm, Device.VirtualDisk)] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        vcenter.reconfigure(vm, disk(controller=1000, unit=3))


def test_a_disk_is_kept_or_destroyed_on_removal(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create(
        "drop", pvscsi(), disk("[LocalDS_0] kept.vmdk"), disk("[LocalDS_0] gone.vmdk", unit=1)
    )
    kept, gone = vcenter.devices(vm, Device.VirtualDisk)
    vcenter.reconfigure(vm, remove(kept), remove(gone, "destroy"))
    assert vcenter.devices(vm, Device.VirtualDisk) == []
    assert (lab.datastore / "kept.vmdk").exists()
    assert not (lab.datastore / "gone.vmdk").exists()


def test_a_file_that_is_there_is_attached_and_not_made_again(vcenter: VCenter) -> None:
    create_disk(vcenter, "[LocalDS_0] there.vmdk", mib=24)
    vm = vcenter.create("attach", pvscsi(), existing_disk("[LocalDS_0] there.vmdk"))
    assert vcenter.devices(vm, Device.VirtualDisk)[0].capacityInKB == 24 * 1024
    with pytest.raises(vim.fault.FileAlreadyExists):
        vcenter.reconfigure(vm, disk("[LocalDS_0] there.vmdk", controller=1000, unit=1))
    with pytest.raises(vim.fault.FileNotFound):
        vcenter.reconfigure(vm, existing_disk("[LocalDS_0] nowhere.vmdk", controller=1000, unit=1))


def test_destroy_takes_parents_along(lab: LabProcess, vcenter: VCenter) -> None:
    create_disk(vcenter, "[LocalDS_0] victim.vmdk")
    vm = vcenter.create("careless", pvscsi(), disk(parent="[LocalDS_0] victim.vmdk"))
    vcenter.destroy(vm)
    assert not (lab.datastore / "victim.vmdk").exists()


def test_running_vms_lock_their_disks(vcenter: VCenter) -> None:
    create_disk(vcenter, "[LocalDS_0] shared.vmdk")
    first = vcenter.create("first", pvscsi(), existing_disk("[LocalDS_0] shared.vmdk"))
    second = vcenter.create("second", pvscsi(), existing_disk("[LocalDS_0] shared.vmdk"))
    vcenter.power_on(first)
    with pytest.raises(vim.fault.FileLocked):
        vcenter.power_on(second)
    with pytest.raises(vim.fault.FileLocked):
        manager = vcenter.content.virtualDiskManager
        vcenter.wait(manager.DeleteVirtualDisk_Task("[LocalDS_0] shared.vmdk", vcenter.datacenter))
    vcenter.wait(first.PowerOffVM_Task())
    vcenter.power_on(second)


def test_readers_share_a_disk(vcenter: VCenter) -> None:
    create_disk(vcenter, "[LocalDS_0] image.vmdk")
    mode = "independent_nonpersistent"
    vms = [
        vcenter.create(f"reader{n}", pvscsi(), existing_disk("[LocalDS_0] image.vmdk", mode=mode))
        for n in (1, 2)
    ]
    for vm in vms:
        vcenter.power_on(vm)
    writer = vcenter.create("writer", pvscsi(), existing_disk("[LocalDS_0] image.vmdk"))
    with pytest.raises(vim.fault.FileLocked):
        vcenter.power_on(writer)


def test_the_disk_manager_works_on_real_files(lab: LabProcess, vcenter: VCenter) -> None:
    manager, dc = vcenter.content.virtualDiskManager, vcenter.datacenter
    create_disk(vcenter, "[LocalDS_0] m.vmdk")
    uuid = manager.QueryVirtualDiskUuid("[LocalDS_0] m.vmdk", dc)
    assert uuid.startswith("60 00 c2 9")
    vcenter.wait(
        manager.MoveVirtualDisk_Task("[LocalDS_0] m.vmdk", dc, "[LocalDS_1] n.vmdk", dc, False, None)
    )
    assert manager.QueryVirtualDiskUuid("[LocalDS_1] n.vmdk", dc) == uuid
    vcenter.wait(
        manager.CopyVirtualDisk_Task("[LocalDS_1] n.vmdk", dc, "[LocalDS_0] o.vmdk", dc, None, False)
    )
    assert manager.QueryVirtualDiskUuid("[LocalDS_0] o.vmdk", dc) != uuid
    vcenter.wait(manager.ExtendVirtualDisk_Task("[LocalDS_0] o.vmdk", dc, 32 * 1024, False))
    vm = vcenter.create("managed", pvscsi(), existing_disk("[LocalDS_0] o.vmdk"))
    assert vcenter.devices(vm, Device.VirtualDisk)[0].capacityInKB == 32 * 1024
    with pytest.raises(vim.fault.FileAlreadyExists):
        create_disk(vcenter, "[LocalDS_0] o.vmdk")
    vcenter.wait(manager.DeleteVirtualDisk_Task("[LocalDS_1] n.vmdk", dc))
    with pytest.raises(vim.fault.FileNotFound):
        vcenter.wait(manager.DeleteVirtualDisk_Task("[LocalDS_1] n.vmdk", dc))
    assert not list(lab.datastore.glob("*.new"))


def test_a_disk_may_be_used_by_uuid(vcenter: VCenter) -> None:
    manager, dc = vcenter.content.virtualDiskManager, vcenter.datacenter
    create_disk(vcenter, "[LocalDS_0] u.vmdk")
    manager.SetVirtualDiskUuid("[LocalDS_0] u.vmdk", dc, "60 00 C2 9f 00 11 22 33-44 55 66 77 88 99 aa bb")
    vm = vcenter.create("uuid", pvscsi(), existing_disk("[LocalDS_0] u.vmdk"))
    assert vcenter.devices(vm, Device.VirtualDisk)[0].backing.uuid == "6000c29f-0011-2233-4455-66778899aabb"


def test_a_full_datastore_takes_no_more(lab: LabProcess, vcenter: VCenter) -> None:
    lab.control("POST", "datastores", {"name": "LocalDS_1", "full": True})
    with pytest.raises(vim.fault.NoDiskSpace) as caught:
        create_disk(vcenter, "[LocalDS_1] more.vmdk")
    assert caught.value.datastore == "LocalDS_1"
    lab.control("POST", "datastores", {"name": "LocalDS_1", "full": False})
    create_disk(vcenter, "[LocalDS_1] more.vmdk")
