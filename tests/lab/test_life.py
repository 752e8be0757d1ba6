"""Power, snapshots, clones, hosts: the same without guests, where only the API is looked at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pyVmomi import vim, vmodl

from tests.lab.process import LabProcess
from tests.lab.vcenter import Device, VCenter, disk, nic, pvscsi, share


def power(vcenter: VCenter, vm: object) -> str:
    return str(vcenter.read(vm, "runtime.powerState"))


def names(lab: LabProcess, directory: str) -> list[str]:
    return sorted(path.name for path in (lab.datastore / directory).glob("*.vmdk"))


# -- power


def test_power_follows_its_states(vcenter: VCenter) -> None:
    vm = vcenter.create("states")
    for call in (vm.PowerOffVM_Task, vm.SuspendVM_Task, vm.ResetVM_Task):
        with pytest.raises(vim.fault.InvalidPowerState) as caught:
            vcenter.wait(call())
        assert caught.value.existingState == "poweredOff"
    vcenter.power_on(vm)
    with pytest.raises(vim.fault.InvalidPowerState):
        vcenter.power_on(vm)
    with pytest.raises(vim.fault.InvalidPowerState):
        vcenter.wait(vm.Destroy_Task())
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.UnregisterVM()
    vcenter.wait(vm.SuspendVM_Task())
    assert power(vcenter, vm) == "suspended"
    vcenter.power_on(vm)
    vcenter.wait(vm.ResetVM_Task())
    assert power(vcenter, vm) == "poweredOn"
    vcenter.wait(vm.PowerOffVM_Task())
    assert power(vcenter, vm) == "poweredOff"
    events = vcenter.events(vm)
    for kind in ("VmPoweredOnEvent", "VmSuspendedEvent", "VmResettingEvent", "VmPoweredOffEvent"):
        assert kind in events


def test_a_cluster_powers_several_on(vcenter: VCenter) -> None:
    vms = [vcenter.create(f"multi{n}") for n in (1, 2)]
    result = vcenter.wait(vcenter.datacenter.PowerOnMultiVM_Task(vms, None))
    assert [info.vm for info in result.attempted] == vms
    for info in result.attempted:
        vcenter.wait(info.task)
    assert {power(vcenter, vm) for vm in vms} == {"poweredOn"}


def test_only_a_guest_with_tools_is_asked(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("tools")
    with pytest.raises(vim.fault.InvalidPowerState):
        vm.ShutdownGuest()
    vcenter.power_on(vm)
    with pytest.raises(vim.fault.ToolsUnavailable):
        vm.ShutdownGuest()
    lab.control("POST", "guest", {"vm": "tools", "tools": True})
    assert vcenter.read(vm, "guest.toolsRunningStatus") == "guestToolsRunning"
    vm.RebootGuest()
    assert vcenter.read(vm, "guest.toolsRunningStatus") == "guestToolsNotRunning"
    lab.control("POST", "guest", {"vm": "tools", "tools": True})
    vm.ShutdownGuest()
    assert power(vcenter, vm) == "poweredOff"


def test_a_guest_powers_itself_off_and_is_terminated(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("off")
    vcenter.power_on(vm)
    lab.control("POST", "guest", {"vm": "off", "power_off": True})
    assert power(vcenter, vm) == "poweredOff"
    vcenter.power_on(vm)
    vm.TerminateVM()
    assert power(vcenter, vm) == "poweredOff"


def test_guestinfo_goes_both_ways(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("info", **{"guestinfo.in": "a b", "secret": "not for guests"})
    vcenter.power_on(vm)

    def ask(request: str) -> str:
        return str(lab.control("POST", "guest", {"vm": "info", "request": request})["answer"])

    assert ask("info-get guestinfo.in") == "1 a b"
    assert ask("info-get guestinfo.none") == "0 No value found"
    assert ask("info-get secret").startswith("0 ")
    before = vcenter.read(vm, "config.changeVersion")
    assert ask("info-set guestinfo.out x y z") == "1 "
    assert vcenter.extra(vm)["guestinfo.out"] == "x y z"
    assert vcenter.read(vm, "config.changeVersion") != before
    ask("info-set guestinfo.ip 10.0.0.7")
    assert vcenter.read(vm, "guest.ipAddress") == "10.0.0.7"


# -- snapshots


def snapshot(vcenter: VCenter, vm: object, name: str, *, memory: bool = False) -> object:
    return vcenter.wait(vm.CreateSnapshot_Task(name, "", memory, False))  # type: ignore[attr-defined]


def test_a_snapshot_freezes_disks_and_configuration(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("snap", pvscsi(), disk(), **{"guestinfo.x": "before"})
    first = snapshot(vcenter, vm, "first")
    (device,) = vcenter.devices(vm, Device.VirtualDisk)
    assert device.backing.fileName == "[LocalDS_0] snap/snap-000001.vmdk"
    assert device.backing.parent.fileName == "[LocalDS_0] snap/snap.vmdk"
    vcenter.set_extra(vm, **{"guestinfo.x": "after"})
    vcenter.reconfigure(vm, memoryMB=128)
    snapshot(vcenter, vm, "second")
    tree = vcenter.read(vm, "snapshot")
    assert tree.rootSnapshotList[0].name == "first"
    assert tree.rootSnapshotList[0].childSnapshotList[0].name == "second"
    vcenter.wait(first.RevertToSnapshot_Task())  # type: ignore[attr-defined]
    assert vcenter.extra(vm)["guestinfo.x"] == "before"
    assert vcenter.read(vm, "config.hardware.memoryMB") == 64
    (device,) = vcenter.devices(vm, Device.VirtualDisk)
    assert device.backing.parent.fileName == "[LocalDS_0] snap/snap.vmdk"
    assert vcenter.read(vm, "snapshot.currentSnapshot") == first
    vcenter.wait(vm.RemoveAllSnapshots_Task())
    assert vcenter.read(vm, "snapshot") is None
    (device,) = vcenter.devices(vm, Device.VirtualDisk)
    assert (device.backing.fileName, device.backing.parent) == ("[LocalDS_0] snap/snap.vmdk", None)
    assert names(lab, "snap") == ["snap.vmdk"]


def test_a_snapshot_in_the_middle_is_merged(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("middle", pvscsi(), disk())
    one = snapshot(vcenter, vm, "one")
    two = snapshot(vcenter, vm, "two")
    two.RenameSnapshot("renamed", "text")  # type: ignore[attr-defined]
    vcenter.wait(two.RemoveSnapshot_Task(False, True))  # type: ignore[attr-defined]
    tree = vcenter.read(vm, "snapshot")
    assert [t.name for t in tree.rootSnapshotList] == ["one"]
    assert tree.currentSnapshot == one
    assert names(lab, "middle") == ["middle-000001.vmdk", "middle.vmdk"]
    vcenter.destroy(vm)
    assert not (lab.datastore / "middle").exists()


def test_memory_makes_a_snapshot_of_a_running_vm(vcenter: VCenter) -> None:
    vm = vcenter.create("memory", pvscsi(), disk())
    vcenter.power_on(vm)
    running = snapshot(vcenter, vm, "running", memory=True)
    cold = snapshot(vcenter, vm, "cold")
    tree = vcenter.read(vm, "snapshot").rootSnapshotList[0]
    assert (tree.state, tree.childSnapshotList[0].state) == ("poweredOn", "poweredOff")
    vcenter.wait(cold.RevertToSnapshot_Task())  # type: ignore[attr-defined]
    assert power(vcenter, vm) == "poweredOff"
    vcenter.wait(running.RevertToSnapshot_Task())  # type: ignore[attr-defined]
    assert power(vcenter, vm) == "poweredOn"
    vcenter.wait(vm.RevertToCurrentSnapshot_Task(None, True))


# -- clones


def clone_spec(**fields: object) -> object:
    location = vim.vm.RelocateSpec(
        **{k: v for k, v in fields.items() if k in ("pool", "diskMoveType", "datastore")}
    )
    rest = {k: v for k, v in fields.items() if k in ("powerOn", "snapshot", "config")}
    return vim.vm.CloneSpec(location=location, template=False, **{"powerOn": False, **rest})


def test_a_full_clone_shares_nothing(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("source", pvscsi(), disk(), nic(vcenter.portgroup()), **{"guestinfo.x": "1"})
    snapshot(vcenter, vm, "s")
    config = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="guestinfo.y", value="2")])
    spec = clone_spec(pool=vcenter.pool, config=config, powerOn=True)
    clone = vcenter.wait(vm.CloneVM_Task(vcenter.folder, "copy", spec))
    assert power(vcenter, clone) == "poweredOn"
    (mine,), (theirs,) = vcenter.devices(clone, Device.VirtualDisk), vcenter.devices(vm, Device.VirtualDisk)
    assert mine.backing.fileName == "[LocalDS_0] copy/copy.vmdk"
    assert mine.backing.parent is None
    assert theirs.backing.fileName == "[LocalDS_0] source/source-000001.vmdk"
    macs = [vcenter.devices(v, Device.VirtualVmxnet3)[0].macAddress for v in (vm, clone)]
    assert macs[0] != macs[1]
    assert vcenter.read(clone, "config.uuid") != vcenter.read(vm, "config.uuid")
    assert vcenter.read(clone, "snapshot") is None
    extra = vcenter.extra(clone)
    assert (extra["guestinfo.x"], extra["guestinfo.y"]) == ("1", "2")
    with pytest.raises(vim.fault.DuplicateName):
        vcenter.wait(vm.CloneVM_Task(vcenter.folder, "copy", spec))
    vcenter.destroy(clone)
    assert not (lab.datastore / "copy").exists()


def test_a_linked_clone_is_a_child_of_a_snapshot(vcenter: VCenter) -> None:
    vm = vcenter.create("base", pvscsi(), disk())
    point = snapshot(vcenter, vm, "point")
    vcenter.power_on(vm)
    with pytest.raises(vmodl.fault.InvalidArgument):
        spec = clone_spec(pool=vcenter.pool, diskMoveType="createNewChildDiskBacking")
        vcenter.wait(vm.CloneVM_Task(vcenter.folder, "impossible", spec))
    spec = clone_spec(pool=vcenter.pool, diskMoveType="createNewChildDiskBacking", snapshot=point)
    clone = vcenter.wait(vm.CloneVM_Task(vcenter.folder, "linked", spec))
    (device,) = vcenter.devices(clone, Device.VirtualDisk)
    assert device.backing.parent.fileName == "[LocalDS_0] base/base.vmdk"


def test_an_instant_clone_runs_on_children_of_the_same_disks(vcenter: VCenter) -> None:
    vm = vcenter.create("parent", pvscsi(), disk(), **{"guestinfo.id": "parent"})
    spec = vim.vm.InstantCloneSpec(
        name="instant",
        location=vim.vm.RelocateSpec(),
        config=[vim.option.OptionValue(key="guestinfo.id", value="child")],
    )
    with pytest.raises(vim.fault.InvalidPowerState):
        vcenter.wait(vm.InstantClone_Task(spec))
    vcenter.power_on(vm)
    clone = vcenter.wait(vm.InstantClone_Task(spec))
    assert power(vcenter, clone) == power(vcenter, vm) == "poweredOn"
    assert vcenter.extra(clone)["guestinfo.id"] == "child"
    backings = [vcenter.devices(v, Device.VirtualDisk)[0].backing for v in (vm, clone)]
    assert backings[0].fileName != backings[1].fileName
    assert {b.parent.fileName for b in backings} == {"[LocalDS_0] parent/parent.vmdk"}


# -- hosts


def host_of(vcenter: VCenter, vm: object) -> str:
    return str(vcenter.read(vcenter.read(vm, "runtime.host"), "name"))


def test_a_host_that_does_not_answer_keeps_its_vms(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("stranded")
    vcenter.power_on(vm)
    host = host_of(vcenter, vm)
    lab.control("POST", "hosts", {"name": host, "state": "notResponding"})
    assert vcenter.read(vm, "runtime.connectionState") == "disconnected"
    with pytest.raises(vmodl.fault.HostNotConnected):
        vcenter.wait(vm.PowerOffVM_Task())
    lab.control("POST", "hosts", {"name": host, "state": "connected"})
    assert vcenter.read(vm, "runtime.connectionState") == "connected"
    vcenter.wait(vm.PowerOffVM_Task())


def test_ha_restarts_the_vms_of_a_dead_host(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("restarted")
    vcenter.power_on(vm)
    host = host_of(vcenter, vm)
    lab.control("POST", "hosts", {"name": host, "state": "crashed", "ha": True})
    assert host_of(vcenter, vm) != host
    assert power(vcenter, vm) == "poweredOn"
    assert vcenter.read(vm, "runtime.connectionState") == "connected"
    assert "VmRestartedOnAlternateHostEvent" in vcenter.events(vm)
    lab.control("POST", "hosts", {"name": host, "state": "connected"})


def test_a_vm_moves_between_hosts_pools_and_folders(vcenter: VCenter) -> None:
    vm = vcenter.create("moved")
    vcenter.power_on(vm)
    here = vcenter.read(vm, "runtime.host")
    there = next(h for h in vcenter.read(vcenter.cluster, "host") if h != here)
    vcenter.wait(vm.MigrateVM_Task(None, there, "defaultPriority", None))
    assert vcenter.read(vm, "runtime.host") == there
    assert "VmMigratedEvent" in vcenter.events(vm)
    pool = vcenter.pool.CreateResourcePool("sub", share())
    folder = vcenter.folder.CreateFolder("sub")
    vcenter.wait(vm.RelocateVM_Task(vim.vm.RelocateSpec(pool=pool, folder=folder), "defaultPriority"))
    assert vcenter.read(vm, "resourcePool") == pool
    assert vcenter.read(vm, "parent") == folder
    assert vcenter.read(pool, "vm") == [vm]


def test_folders_and_vapps_take_their_vms_along(lab: LabProcess, vcenter: VCenter) -> None:
    folder = vcenter.folder.CreateFolder("doomed")
    vm = vcenter.wait(folder.CreateVM_Task(vcenter.spec("inside", pvscsi(), disk()), vcenter.pool, None))
    vcenter.power_on(vm)
    with pytest.raises(vim.fault.InvalidPowerState):
        vcenter.wait(folder.Destroy_Task())
    vcenter.wait(vm.PowerOffVM_Task())
    vcenter.wait(folder.Destroy_Task())
    assert not (lab.datastore / "inside").exists()
    app = vcenter.pool.CreateVApp("doomed-app", share(), vim.vApp.VAppConfigSpec(), vcenter.folder)
    child = vcenter.wait(app.CreateChildVM_Task(vcenter.spec("app-vm", pvscsi(), disk()), None))
    vcenter.wait(app.PowerOnVApp_Task())
    assert power(vcenter, child) == "poweredOn"
    vcenter.wait(app.PowerOffVApp_Task(True))
    vcenter.wait(app.Destroy_Task())
    assert not (lab.datastore / "app-vm").exists()


# -- many at once


def test_clients_do_not_disturb_each_other(lab: LabProcess, vcenter: VCenter) -> None:
    def life(number: int) -> list[str]:
        client = VCenter(lab)
        seen = []
        for turn in range(3):
            vm = client.create(f"crowd-{number}-{turn}", pvscsi(), nic(client.portgroup()))
            client.power_on(vm)
            client.set_extra(vm, **{"guestinfo.turn": str(turn)})
            seen.append(client.extra(vm)["guestinfo.turn"])
            client.destroy(vm)
        client.close()
        return seen

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(life, range(6))) == [["0", "1", "2"]] * 6
    assert not [vm for vm in lab.state()["vms"] if vm["name"].startswith("crowd")]
