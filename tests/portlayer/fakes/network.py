"""Leases, taps and ports in memory; they go with the port layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from portlayer.errors import PortLayerError
from portlayer.execution.rooms import Attachment, PluggedNic
from portlayer.portlayer_pb2 import (
    Endpoint,
    Network,
    PortBinding,
    Reason,
)
from tether.tether_pb2 import (
    Interface,
    Resolver,
)

if TYPE_CHECKING:
    from tests.portlayer.world import World


NETWORK = "a" * 64


OTHER_NETWORK = "b" * 64


class FakeNetwork:
    """Leases, taps and ports in memory, as strict as the real one about twins."""

    def __init__(self, host: World) -> None:
        self.host = host
        self.leases: dict[tuple[str, str], Endpoint] = {}
        self.taps: dict[tuple[str, str], str] = {}
        self.ports: dict[tuple[int, str], str] = {}
        self.opened: list[Attachment] = []
        self.names: list[str] = []
        self._addresses = itertools.count(2)
        self._free_ports = itertools.count(49153)

    async def open(self, containers: Sequence[Attachment]) -> None:
        self.opened = list(containers)
        for attachment in containers:
            for endpoint in attachment.endpoints:
                if endpoint.endpoint_id:
                    self.leases[attachment.container, endpoint.network] = endpoint
                if attachment.running:
                    self.taps[attachment.container, endpoint.network] = _tap(attachment.container, endpoint)
            for port in attachment.ports:
                self.ports[port.assigned_port, port.protocol] = attachment.container

    async def close(self) -> None: ...

    def get(self, ref: str) -> Network:
        if ref not in (NETWORK, OTHER_NETWORK):
            raise PortLayerError(Reason.NO_SUCH_NETWORK, f"network {ref} not found")
        return Network(id=ref, name="bridge")

    def list(self) -> list[Network]:
        return [self.get(NETWORK), self.get(OTHER_NETWORK)]

    async def create(self, network: Network) -> Network:
        return Network(id="c" * 64, name=network.name)

    async def remove(self, ref: str) -> None:
        self.get(ref)

    def allocate(self, container: str, name: str, endpoint: Endpoint) -> Endpoint:
        self.host.faults("network.allocate")
        self.get(endpoint.network)
        held = {lease.assigned_ipv4 for lease in self.leases.values()}
        address = endpoint.ipv4 or f"172.30.0.{next(self._addresses)}"
        if f"{address}/24" in held:
            raise PortLayerError(Reason.ADDRESS_IN_USE, f"Address {address} already in use")
        lease = Endpoint()
        lease.CopyFrom(endpoint)
        lease.assigned_ipv4 = f"{address}/24"
        lease.assigned_mac = "02:00:00:00:00:01"
        lease.gateway_ipv4 = "172.30.0.1"
        lease.endpoint_id = f"ep-{container[:4]}-{endpoint.network[:4]}"
        self.leases[container, endpoint.network] = lease
        return lease

    def release(self, container: str, network: str | None = None) -> None:
        for key in list(self.leases):
            if key[0] == container and network in (None, key[1]):
                del self.leases[key]

    def reserve_ports(self, container: str, ports: Sequence[PortBinding]) -> list[PortBinding]:
        self.host.faults("network.reserve_ports")
        reserved = []
        for port in ports:
            number = port.host_port or next(self._free_ports)
            if self.ports.get((number, port.protocol), container) != container:
                raise PortLayerError(Reason.PORT_IN_USE, f"port {number} is already allocated")
            bound = PortBinding()
            bound.CopyFrom(port)
            bound.assigned_port = number
            reserved.append(bound)
        for port in reserved:
            self.ports[port.assigned_port, port.protocol] = container
        return reserved

    def release_ports(self, container: str) -> None:
        self.ports = {key: holder for key, holder in self.ports.items() if holder != container}

    async def plug(self, attachment: Attachment) -> list[PluggedNic]:
        self.host.faults("network.plug")
        nics = []
        for endpoint in attachment.endpoints:
            assert endpoint.endpoint_id, "plugged without a lease"
            tap = _tap(attachment.container, endpoint)
            self.taps[attachment.container, endpoint.network] = tap
            nics.append(
                PluggedNic(
                    tap=tap,
                    mac=endpoint.assigned_mac,
                    bridge=f"mr{endpoint.network[:10]}",
                    network=endpoint.network,
                    mtu=1500,
                )
            )
        return nics

    async def unplug(self, container: str, network: str | None = None) -> None:
        self.host.faults("network.unplug")
        for key in list(self.taps):
            if key[0] == container and network in (None, key[1]):
                del self.taps[key]

    def interfaces(self, attachment: Attachment) -> tuple[list[Interface], Resolver]:
        found = [
            Interface(mac=e.assigned_mac, name=f"eth{n}", addresses=[e.assigned_ipv4])
            for n, e in enumerate(attachment.endpoints)
        ]
        return found, Resolver(servers=["172.30.0.1"])

    def update_names(self, attachment: Attachment) -> None:
        self.names.append(attachment.name)


def _tap(container: str, endpoint: Endpoint) -> str:
    return f"mt{container[:8]}{endpoint.network[:2]}"
