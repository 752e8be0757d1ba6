"""The least that the user of a VCH must be allowed, in one place for validation, documentation and tests.

Each call of ours is listed with the privilege it needs; a role is what its calls
need together, and the kind of object where it is granted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["CALLS", "ROLES", "Call", "Where", "privileges"]


class Where(enum.Enum):
    ROOT = "vCenter (root folder)"
    DATACENTER = "data centre"
    FOLDER = "VM folder"
    POOL = "resource pool"
    DATASTORE = "datastore"
    NETWORK = "port group"


@dataclass(frozen=True)
class Call:
    method: str
    purpose: str
    where: Where
    privileges: tuple[str, ...] = ()  # none: reading what one sees


_DISK = "VirtualMachine.Config.AddExistingDisk"
_DEVICE = "VirtualMachine.Config.AddRemoveDevice"

CALLS = (
    Call("SessionManager.Login, Logout", "one session", Where.ROOT),
    Call("ServiceInstance.RetrieveContent, CurrentTime", "what the server is; keep-alive, clock", Where.ROOT),
    Call("ViewManager.Create…View, ModifyListView", "VMs, inventory, tasks", Where.ROOT, ("System.View",)),
    Call("PropertyCollector.*", "the long poll, bulk reads", Where.ROOT, ("System.Read",)),
    Call("SearchIndex.FindByUuid", "a VM whose creation got no answer", Where.ROOT, ("System.Read",)),
    Call(
        "Folder.CreateVM_Task",
        "create",
        Where.FOLDER,
        ("VirtualMachine.Inventory.Create", _DEVICE, "VirtualMachine.Config.AdvancedConfig"),
    ),
    Call("Folder.CreateVM_Task", "create", Where.POOL, ("Resource.AssignVMToPool",)),
    Call("Folder.CreateVM_Task", "create", Where.DATASTORE, ("Datastore.AllocateSpace",)),
    Call(
        "VirtualMachine.ReconfigVM_Task",
        "configuration, disks, NICs, serial ports",
        Where.FOLDER,
        (
            _DISK,
            "VirtualMachine.Config.RemoveDisk",
            _DEVICE,
            "VirtualMachine.Config.EditDevice",
            "VirtualMachine.Config.AdvancedConfig",
            "VirtualMachine.Config.CPUCount",
            "VirtualMachine.Config.Memory",
            "VirtualMachine.Config.Rename",
        ),
    ),
    Call("VirtualMachine.ReconfigVM_Task", "NICs", Where.NETWORK, ("Network.Assign",)),
    Call("VirtualMachine.ReconfigVM_Task", "disk files", Where.DATASTORE, ("Datastore.FileManagement",)),
    Call(
        "VirtualMachine.PowerOnVM_Task", "start, resume", Where.FOLDER, ("VirtualMachine.Interact.PowerOn",)
    ),
    Call("VirtualMachine.PowerOffVM_Task", "power off", Where.FOLDER, ("VirtualMachine.Interact.PowerOff",)),
    Call("VirtualMachine.SuspendVM_Task", "pause", Where.FOLDER, ("VirtualMachine.Interact.Suspend",)),
    Call(
        "VirtualMachine.CreateSnapshot_Task, RemoveSnapshot_Task",
        "snapshot, clone",
        Where.FOLDER,
        ("VirtualMachine.State.CreateSnapshot", "VirtualMachine.State.RemoveSnapshot"),
    ),
    Call(
        "VirtualMachine.CloneVM_Task",
        "clone of a running VM",
        Where.FOLDER,
        ("VirtualMachine.Provisioning.Clone", "VirtualMachine.Inventory.CreateFromExisting"),
    ),
    Call("VirtualMachine.Destroy_Task", "remove", Where.FOLDER, ("VirtualMachine.Inventory.Delete",)),
    Call(
        "AuthorizationManager.FetchUserPrivilegeOnEntities",
        "validation",
        Where.ROOT,
        ("System.View",),
    ),
    Call(
        "LicenseAssignmentManager.QueryAssignedLicenses",
        "validation",
        Where.ROOT,
        ("Global.Licenses",),
    ),
)

_IMPLIED = {"System.View", "System.Read", "System.Anonymous"}
_VALIDATION_ONLY = {"Global.Licenses"}  # without it validation says what it could not check


def privileges(where: Where) -> frozenset[str]:
    """What the operations user needs on an object of this kind."""
    wanted = {p for call in CALLS if call.where is where for p in call.privileges}
    return frozenset(wanted - _IMPLIED - _VALIDATION_ONLY)


ROLES = {where: privileges(where) for where in Where if privileges(where)}
"""Where a role is granted -> what is in it."""
