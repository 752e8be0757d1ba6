"""VMs without guests: names, configuration, change versions, extraConfig, registration."""

from __future__ import annotations

import pytest
from pyVmomi import vim, vmodl

from tests.lab.process import LabProcess
from tests.lab.vcenter import (
    Device,
    VCenter,
    Watch,
    add,
    cdrom,
    disk,
    edit,
    nic,
    pvscsi,
    remove,
    serial_file,
    serial_uri,
    share,
)


def test_a_vm_is_made_with_its_devices_and_goes_with_its_files(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create(
        "made", pvscsi(), disk(mib=32), nic(vcenter.portgroup()), cdrom("[LocalDS_0] x.iso"), note="here"
    )
    (made,) = vcenter.devices(vm, Device.VirtualDisk)
    assert made.capacityInKB == 32 * 1024
    assert made.backing.fileName == "[LocalDS_0] made/made.vmdk"
    assert made.controllerKey == 1000
    assert vcenter.extra(vm)["note"] == "here"
    assert (lab.datastore / "made/made.vmdk").stat().st_size > 0
    vcenter.destroy(vm)
    assert not (lab.datastore / "made").exists()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vcenter.read(vm, "name")


def test_a_creation_that_fails_leaves_nothing(lab: LabProcess, vcenter: VCenter) -> None:
    with pytest.raises(vim.fault.FileNotFound):
        vcenter.create("half", pvscsi(), disk(), disk(unit=1, parent="[LocalDS_0] nowhere.vmdk"))
    assert not (lab.datastore / "half").exists()
    assert "half" not in [vm["name"] for vm in lab.state()["vms"]]


def test_a_name_is_unique_in_its_folder(vcenter: VCenter) -> None:
    first = vcenter.create("twin")
    with pytest.raises(vim.fault.DuplicateName) as caught:
        vcenter.create("twin")
    assert caught.value.object == first
    other = vcenter.create("other")
    with pytest.raises(vim.fault.DuplicateName):
        vcenter.reconfigure(other, name="twin")
    with pytest.raises(vim.fault.DuplicateName):
        vcenter.wait(other.Rename_Task("twin"))
    elsewhere = vcenter.folder.CreateFolder("elsewhere")
    spec = vcenter.spec("twin")
    vcenter.wait(elsewhere.CreateVM_Task(spec, vcenter.pool, None))


def test_extra_config_is_merged_deleted_and_announced(vcenter: VCenter) -> None:
    vm = vcenter.create("extra", **{"guestinfo.a": "1", "guestinfo.b": "2"})
    with Watch(vcenter, vm, ["config.extraConfig", "config.changeVersion"]) as watch:
        before = watch.values["config.changeVersion"]
        vcenter.set_extra(vm, **{"guestinfo.a": "new", "guestinfo.b": "", "guestinfo.c": "3"})
        assert watch.next(seconds=5)
        seen = {o.key: o.value for o in watch.values["config.extraConfig"]}
        assert seen == vcenter.extra(vm)
        assert {k: v for k, v in seen.items() if k.startswith("guestinfo")} == {
            "guestinfo.a": "new",
            "guestinfo.c": "3",
        }
        assert watch.values["config.changeVersion"] != before


def test_a_stale_change_version_is_refused(vcenter: VCenter) -> None:
    vm = vcenter.create("versions")
    seen = vcenter.read(vm, "config.changeVersion")
    vcenter.reconfigure(vm, changeVersion=seen, annotation="first")
    with pytest.raises(vim.fault.ConcurrentAccess):
        vcenter.reconfigure(vm, changeVersion=seen, annotation="second")
    assert vcenter.read(vm, "config.annotation") == "first"


def test_addresses_are_unique(vcenter: VCenter) -> None:
    portgroup = vcenter.portgroup()
    vms = [vcenter.create(f"mac{n}", nic(portgroup), nic(portgroup)) for n in range(20)]
    addresses = [card.macAddress for vm in vms for card in vcenter.devices(vm, Device.VirtualVmxnet3)]
    assert len(set(addresses)) == 40
    assert all(address.startswith("00:50:56:") for address in addresses)
    chosen = vcenter.create("chosen", nic(portgroup, mac="00:50:56:00:00:01"))
    assert vcenter.devices(chosen, Device.VirtualVmxnet3)[0].macAddress == "00:50:56:00:00:01"


def test_a_vm_has_ten_nics_at_most(vcenter: VCenter) -> None:
    portgroup = vcenter.portgroup()
    vm = vcenter.create("nics", *[nic(portgroup) for _ in range(10)])
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        vcenter.reconfigure(vm, nic(portgroup))


def test_a_port_group_in_use_cannot_be_removed(vcenter: VCenter) -> None:
    switch = next(
        n for n in vcenter.datacenter.networkFolder.childEntity if isinstance(n, vim.DistributedVirtualSwitch)
    )
    spec = vim.dvs.DistributedVirtualPortgroup.ConfigSpec(name="first")
    portgroup = vcenter.wait(switch.CreateDVPortgroup_Task(spec))
    with pytest.raises(vim.fault.DuplicateName):
        vcenter.wait(switch.CreateDVPortgroup_Task(spec))
    vcenter.wait(portgroup.Rename_Task("mine"))
    assert vcenter.portgroup("mine") == portgroup
    vm = vcenter.create("user", nic(portgroup))
    with pytest.raises(vim.fault.ResourceInUse):
        vcenter.wait(portgroup.Destroy_Task())
    vcenter.destroy(vm)
    vcenter.wait(portgroup.Destroy_Task())


def test_an_edit_keeps_the_devices_key_and_place(vcenter: VCenter) -> None:
    vm = vcenter.create("edited", serial_uri("tcp://127.0.0.1:1"), serial_file("[LocalDS_0] edited.log"))
    port, log = vcenter.devices(vm, Device.VirtualSerialPort)
    port.backing.serviceURI = "tcp://127.0.0.1:2"
    vcenter.reconfigure(vm, edit(port))
    after, log_after = vcenter.devices(vm, Device.VirtualSerialPort)
    assert (after.key, after.backing.serviceURI) == (port.key, "tcp://127.0.0.1:2")
    assert log_after.key == log.key


def test_a_bad_device_spec_changes_nothing(vcenter: VCenter) -> None:
    vm = vcenter.create("bad", pvscsi())
    wrong = add(
        Device.VirtualSerialPort(key=-1, unitNumber=0, backing=Device.VirtualSerialPort.URIBackingInfo())
    )
    missing = remove(Device.VirtualDisk(key=2000, controllerKey=1000, unitNumber=0, capacityInKB=0))
    with pytest.raises(vim.fault.InvalidDeviceSpec) as caught:
        vcenter.reconfigure(
            vm, disk(controller=1000), wrong, remove(Device.VirtualDisk(key=9, capacityInKB=0))
        )
    assert caught.value.deviceIndex == 2
    assert vcenter.devices(vm, Device.VirtualDisk) == []
    with pytest.raises(vim.fault.InvalidDeviceSpec):
        vcenter.reconfigure(vm, missing)


def test_memory_of_a_running_vm_stays(vcenter: VCenter) -> None:
    vm = vcenter.create("fixed")
    vcenter.power_on(vm)
    with pytest.raises(vim.fault.MemoryHotPlugNotSupported):
        vcenter.reconfigure(vm, memoryMB=128)
    with pytest.raises(vim.fault.CpuHotPlugNotSupported):
        vcenter.reconfigure(vm, numCPUs=2)
    vcenter.reconfigure(vm, memoryMB=64, numCPUs=1, annotation="the same")
    vcenter.wait(vm.PowerOffVM_Task())
    vcenter.reconfigure(vm, memoryMB=128, numCPUs=2)
    assert vcenter.read(vm, "summary.config.memorySizeMB") == 128


def test_a_registered_vm_comes_back_as_it_was(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("back", pvscsi(), disk(), nic(vcenter.portgroup()), **{"guestinfo.x": "kept"})
    vcenter.set_extra(vm, **{"guestinfo.y": "too"})
    config = vcenter.read(vm, "config")
    path = config.files.vmPathName
    vm.UnregisterVM()
    assert (lab.datastore / "back/back.vmdk").exists()
    again = vcenter.wait(vcenter.folder.RegisterVM_Task(path, None, False, vcenter.pool, None))
    assert again != vm
    now = vcenter.read(again, "config")
    assert now.uuid == config.uuid
    assert vcenter.extra(again)["guestinfo.x"] == "kept"
    assert vcenter.extra(again)["guestinfo.y"] == "too"
    assert [d.key for d in now.hardware.device] == [d.key for d in config.hardware.device]
    assert now.hardware.memoryMB == 64
    with pytest.raises((vim.fault.AlreadyExists, vim.fault.DuplicateName)):
        vcenter.wait(vcenter.folder.RegisterVM_Task(path, None, False, vcenter.pool, None))
    vcenter.power_on(again)
    vcenter.destroy(again)
    assert not (lab.datastore / "back").exists()


def test_a_vm_lives_in_a_vapp(vcenter: VCenter) -> None:
    app = vcenter.pool.CreateVApp("app", share(), vim.vApp.VAppConfigSpec(), vcenter.folder)
    spec = vcenter.spec("child", pvscsi(), disk())
    vm = vcenter.wait(app.CreateChildVM_Task(spec, None))
    assert vcenter.read(vm, "resourcePool") == app
    assert vcenter.read(vm, "parent") == vcenter.folder
    path = vcenter.read(vm, "config.files.vmPathName")
    vm.UnregisterVM()
    again = vcenter.wait(app.RegisterChildVM_Task(path, None, None))
    assert vcenter.read(again, "resourcePool") == app
    vcenter.destroy(again)
