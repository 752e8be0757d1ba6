"""Port groups by name: what a NIC of a VM is plugged into.

Names are looked up in one question and remembered; a name that is not known is
looked up once more, since an administrator may just have made it.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.vsphere.collector import retrieve
from portlayer.hypervisor.vsphere.session import Session

__all__ = ["Networks"]

_PC = vmodl.query.PropertyCollector
_Card = vim.vm.device.VirtualEthernetCard


class Networks:
    def __init__(self, session: Session, datacenter: Any) -> None:
        self._session = session
        self._datacenter = datacenter
        self._backings: dict[str, Any] = {}

    async def backing(self, name: str) -> Any:
        """
        Raises:
            HypervisorError: there is no such port group.
        """
        if name not in self._backings:
            self._backings = await self._session.read(self._read, "list the port groups")
        try:
            return self._backings[name]
        except KeyError as error:
            raise HypervisorError(f"no such interface: there is no port group {name!r}") from error

    def forget(self) -> None:
        """Port groups may have changed: look again."""
        self._backings = {}

    def _read(self) -> dict[str, Any]:
        content = self._session.content
        view = content.viewManager.CreateContainerView(
            self._datacenter, [vim.Network, vim.DistributedVirtualSwitch], True
        )
        walk = _PC.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
        spec = _PC.FilterSpec(
            objectSet=[_PC.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
            propSet=[
                _PC.PropertySpec(type=vim.Network, pathSet=["name"]),
                _PC.PropertySpec(
                    type=vim.dvs.DistributedVirtualPortgroup,
                    pathSet=["name", "key", "config.distributedVirtualSwitch"],
                ),
                _PC.PropertySpec(type=vim.DistributedVirtualSwitch, pathSet=["uuid"]),
            ],
        )
        try:
            found = retrieve(content, spec)
        finally:
            view.DestroyView()
        switches = {
            item._moId: values["uuid"]
            for item, values in found.values()
            if isinstance(item, vim.DistributedVirtualSwitch)
        }
        backings: dict[str, Any] = {}
        for item, values in found.values():
            if isinstance(item, vim.dvs.DistributedVirtualPortgroup):
                switch = values.get("config.distributedVirtualSwitch")
                port = vim.dvs.PortConnection(
                    portgroupKey=values["key"], switchUuid=switches.get(getattr(switch, "_moId", ""), "")
                )
                backings[values["name"]] = _Card.DistributedVirtualPortBackingInfo(port=port)
            elif isinstance(item, vim.Network):
                backing = _Card.NetworkBackingInfo(deviceName=values["name"])
                backings.setdefault(values["name"], backing)
        return backings
