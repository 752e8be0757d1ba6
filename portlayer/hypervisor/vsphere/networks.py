"""Port groups by name: what a NIC of a VM is plugged into.

Names are looked up in one question and remembered; a name that is not known is
looked up once more, since an administrator may just have made it.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import vim, vmodl

from portlayer.hypervisor.base import HypervisorError, Nic
from portlayer.hypervisor.vsphere.collector import retrieve
from portlayer.hypervisor.vsphere.session import Session
from vch.config import Vsphere

__all__ = ["Networks"]

_PC = vmodl.query.PropertyCollector
_Card = vim.vm.device.VirtualEthernetCard


class Networks:
    def __init__(self, session: Session, datacenter: Any, target: Vsphere) -> None:
        self._session = session
        self._datacenter = datacenter
        self._target = target
        self._backings: dict[str, Any] = {}

    async def backing(self, nic: Nic) -> Any:
        """Its port group: the one of its network's name, or that of all bridge networks.

        Raises:
            HypervisorError: there is neither.
        """
        found = await self._look_up(nic.network)
        if found is not None:
            return found
        bridge = self._target.bridge
        if not bridge:
            raise HypervisorError(f"no such interface: there is no port group {nic.network!r}")
        found = await self._look_up(bridge)
        if found is None:
            raise HypervisorError(f"no such interface: there is no port group {bridge!r} for bridge networks")
        if self._target.local_ports:
            if not isinstance(found, _Card.DistributedVirtualPortBackingInfo):
                raise HypervisorError(f"port group {bridge!r} is not distributed: it has no ports to name")
            return _Card.DistributedVirtualPortBackingInfo(
                port=vim.dvs.PortConnection(
                    portgroupKey=found.port.portgroupKey, switchUuid=found.port.switchUuid, portKey=nic.id
                )
            )
        return found

    async def _look_up(self, name: str) -> Any | None:
        if name not in self._backings:
            self._backings = await self._session.read(self._read, "list the port groups")
        return self._backings.get(name)

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
