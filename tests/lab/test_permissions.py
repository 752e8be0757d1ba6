"""What a user without privileges may not do, and with a role may."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from pyVmomi import vim

from tests.lab.process import LabProcess, insecure
from tests.lab.vcenter import VCenter, disk, nic, pvscsi

USER = "ops@vsphere.local"


@pytest.fixture
def operator(lab: LabProcess) -> Iterator[VCenter]:
    lab.control("POST", "users", {"name": USER, "password": "ops"})
    client = VCenter(lab, USER, "ops")
    yield client
    client.close()


def grant(vcenter: VCenter, entity: object, name: str, privileges: list[str]) -> int:
    manager = vcenter.content.authorizationManager
    role = manager.AddAuthorizationRole(name, privileges)
    permission = vim.AuthorizationManager.Permission(principal=USER, group=False, roleId=role, propagate=True)
    manager.SetEntityPermissions(entity, [permission])
    return int(role)


def refused(call: object) -> str:
    with pytest.raises(vim.fault.NoPermission) as caught:
        call()  # type: ignore[operator]
    return str(caught.value.privilegeId)


def test_each_privilege_is_asked_for_where_it_counts(
    lab: LabProcess, vcenter: VCenter, operator: VCenter
) -> None:
    spec = operator.spec("theirs", pvscsi(), nic(vcenter.portgroup()))
    create = lambda: operator.wait(operator.folder.CreateVM_Task(spec, operator.pool, None))  # noqa: E731
    assert refused(create) == "VirtualMachine.Inventory.Create"
    role = grant(vcenter, vcenter.folder, "vms", ["VirtualMachine.Inventory.Create"])
    assert role > 0
    assert refused(create) == "Resource.AssignVMToPool"
    grant(vcenter, vcenter.pool, "pool", ["Resource.AssignVMToPool"])
    assert refused(create) == "Datastore.AllocateSpace"
    grant(vcenter, vcenter.datacenter.datastoreFolder, "space", ["Datastore.AllocateSpace"])
    assert refused(create) == "Network.Assign"
    grant(vcenter, vcenter.datacenter.networkFolder, "net", ["Network.Assign"])
    vm = create()
    assert refused(lambda: operator.wait(vm.PowerOnVM_Task(None))) == "VirtualMachine.Interact.PowerOn"
    assert refused(lambda: operator.set_extra(vm, a="b")) == "VirtualMachine.Config.AdvancedConfig"
    assert (
        refused(lambda: operator.reconfigure(vm, disk(controller=1000))) == "VirtualMachine.Config.AddNewDisk"
    )
    assert refused(lambda: operator.wait(vm.Destroy_Task())) == "VirtualMachine.Inventory.Delete"
    manager = vcenter.content.authorizationManager
    manager.UpdateAuthorizationRole(
        role, "vms", ["VirtualMachine.Interact.PowerOn", "VirtualMachine.Config.AdvancedConfig"]
    )
    operator.power_on(vm)
    operator.set_extra(vm, a="b")


def test_privileges_are_told_as_they_are(vcenter: VCenter, operator: VCenter) -> None:
    folder = vcenter.folder.CreateFolder("told")
    grant(vcenter, folder, "told", ["Folder.Create", "Folder.Delete"])
    manager = vcenter.content.authorizationManager
    (answer,) = manager.FetchUserPrivilegeOnEntities([folder], USER)
    assert {p for p in answer.privileges if not p.startswith("System.")} == {"Folder.Create", "Folder.Delete"}
    (has,) = manager.HasUserPrivilegeOnEntities([folder], USER, ["Folder.Create", "Folder.Rename"])
    assert {p.privId: p.isGranted for p in has.privAvailability} == {
        "Folder.Create": True,
        "Folder.Rename": False,
    }
    assert "VirtualMachine.Interact.PowerOn" in [p.privId for p in manager.privilegeList]
    child = operator.stub  # the folder's own permission counts for what is in it
    inside = vim.Folder(folder._moId, child).CreateFolder("inside")
    assert refused(lambda: operator.wait(inside.Rename_Task("other"))) == "Folder.Rename"


def test_nobody_gives_himself_roles(operator: VCenter) -> None:
    manager = operator.content.authorizationManager
    assert refused(lambda: manager.AddAuthorizationRole("mine", [])) == "Authorization.ModifyRoles"
    assert (
        refused(lambda: manager.SetEntityPermissions(operator.folder, []))
        == "Authorization.ModifyPermissions"
    )


def test_datastore_files_need_privileges(lab: LabProcess, operator: VCenter) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", lab.port, context=insecure())
    connection.request(
        "PUT", "/folder/x?dcPath=DC0&dsName=LocalDS_1", body=b"x", headers={"Cookie": operator.stub.cookie}
    )
    assert connection.getresponse().status == 403
    connection.close()
