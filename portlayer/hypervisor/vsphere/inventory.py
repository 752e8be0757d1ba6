"""Where a VCH's VMs live: data centre, folder, pool, datastore and port groups, found by name in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.collector import retrieve
from portlayer.hypervisor.vsphere.session import Session
from vch.config import Vsphere

__all__ = ["Entity", "Inventory", "Place", "find_place", "list_entities", "suggest"]

_PC = vmodl.query.PropertyCollector
_SHOWN = 5


@dataclass(frozen=True)
class Entity:
    """Something with a name, and where it hangs."""

    object: Any
    name: str
    parent: str  # moId

    @property
    def id(self) -> str:
        return str(self.object._moId)


class Inventory:
    """All entities of some kinds, read at once; finds by name or by path."""

    def __init__(self, entities: list[Entity]) -> None:
        self.all = entities
        self._by_id = {entity.id: entity for entity in entities}

    def path(self, entity: Entity) -> str:
        names = [entity.name]
        while (parent := self._by_id.get(entity.parent)) is not None:
            names.append(parent.name)
            entity = parent
        return "/" + "/".join(reversed(names))

    def of(self, *kinds: Any) -> list[Entity]:
        return [entity for entity in self.all if isinstance(entity.object, kinds)]

    def below(self, entity: Entity, ancestor: Entity) -> bool:
        current: Entity | None = entity
        while current is not None:
            if current.id == ancestor.id:
                return True
            current = self._by_id.get(current.parent)
        return False

    def find(self, wanted: str, what: str, candidates: list[Entity]) -> Entity:
        """
        Raises:
            HypervisorError: none or several; it names those that exist.
        """
        if not wanted:
            if len(candidates) == 1:
                return candidates[0]
            raise HypervisorError(f"which {what}? {suggest(self._names(candidates))}")
        found = [e for e in candidates if e.name == wanted or self.path(e) == wanted]
        if not found:  # a path may leave out what does not distinguish
            found = [e for e in candidates if self.path(e).endswith("/" + wanted.strip("/"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise HypervisorError(f"{what} {wanted!r} is ambiguous: {suggest(self._paths(found))}")
        raise HypervisorError(f"there is no {what} {wanted!r}: {suggest(self._names(candidates))}")

    def _names(self, entities: list[Entity]) -> list[str]:
        return [entity.name for entity in entities]

    def _paths(self, entities: list[Entity]) -> list[str]:
        return [self.path(entity) for entity in entities]


def suggest(names: list[str]) -> str:
    if not names:
        return "none exists"
    shown = ", ".join(repr(name) for name in sorted(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"there is {shown}{more}"


@dataclass(frozen=True)
class Place:
    """Where VMs are made."""

    datacenter: Any
    folder: Any
    pool: Any
    datastore: Any


def list_entities(session: Session) -> Inventory:
    """Blocking: for ``session.read``. One view, one question."""
    content = session.content
    kinds = [
        vim.Datacenter,
        vim.Folder,
        vim.ComputeResource,
        vim.ResourcePool,
        vim.Datastore,
        vim.Network,
        vim.HostSystem,
    ]
    view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
    try:
        walk = _PC.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
        spec = _PC.FilterSpec(
            objectSet=[_PC.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
            propSet=[_PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name", "parent"])],
        )
        found = retrieve(content, spec)
    finally:
        view.DestroyView()
    return Inventory(
        [
            Entity(item, str(values.get("name", "")), getattr(values.get("parent"), "_moId", ""))
            for item, values in found.values()
        ]
    )


def find_place(inventory: Inventory, target: Vsphere) -> Place:
    """
    Raises:
        HypervisorError: the first thing that is not there, with names that are.
    """
    datacenter = inventory.find(target.datacenter, "data centre", inventory.of(vim.Datacenter))
    inside = [entity for entity in inventory.all if inventory.below(entity, datacenter)]
    pools = [entity for entity in inside if isinstance(entity.object, vim.ResourcePool)]
    if not target.pool:  # the root pools, one for each cluster or lone host
        pools = [entity for entity in pools if entity.name == "Resources"]
    folders = [entity for entity in inside if isinstance(entity.object, vim.Folder)]
    root = next((e for e in folders if e.name == "vm" and e.parent == datacenter.id), None)
    folder = root
    if target.folder or folder is None:
        folder = inventory.find(target.folder, "VM folder", folders)
    stores = [entity for entity in inside if isinstance(entity.object, vim.Datastore)]
    return Place(
        datacenter=datacenter.object,
        folder=folder.object,
        pool=inventory.find(target.pool, "resource pool", pools).object,
        datastore=inventory.find(target.datastore, "datastore", stores).object,
    )
