"""What a guest has to configure: its interfaces, routes and resolver. Pure.

One endpoint is the way out for each family: the one with the highest gateway
priority, then the first by network name, as in Docker. Internal networks never
are. Published ports come in by the same endpoint, so answers leave the way the
questions came.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portlayer.network.options import BridgeOptions, parse_endpoint_options
from portlayer.network.resolvconf import ResolvConf
from portlayer.portlayer_pb2 import Endpoint, Network
from tether.tether_pb2 import Interface, Resolver, Route

__all__ = ["Placed", "interface_names", "interfaces", "loopback_servers", "preferred", "resolver"]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An endpoint and the network that it is on."""

    endpoint: Endpoint
    network: Network
    options: BridgeOptions
    nameserver: str  # our DNS on this network

    @property
    def ipv4(self) -> str:
        return self.endpoint.assigned_ipv4.partition("/")[0]

    @property
    def ipv6(self) -> str:
        return self.endpoint.assigned_ipv6.partition("/")[0]


def preferred(placed: Sequence[Placed], version: int) -> Placed | None:
    """The endpoint with the default route of a family."""
    usable = [p for p in placed if not p.network.internal and _gateway(p, version)]
    return min(usable, key=lambda p: (-p.endpoint.gateway_priority, p.network.name), default=None)


def _gateway(placed: Placed, version: int) -> str:
    return placed.endpoint.gateway_ipv4 if version == 4 else placed.endpoint.gateway_ipv6


def interface_names(placed: Sequence[Placed], known: Mapping[str, str]) -> dict[str, str]:
    """Network ID -> interface name. ``known`` are the names that the running guest already has: they stay."""
    names = {p.network.id: known[p.network.id] for p in placed if p.network.id in known}
    taken = set(names.values())
    wanted = {p.network.id: parse_endpoint_options(p.endpoint.driver_options).interface for p in placed}
    taken |= set(filter(None, wanted.values()))
    for p in placed:
        if p.network.id in names:
            continue
        name = wanted[p.network.id]
        if not name:
            numbers = range(len(placed) + len(taken) + 1)
            candidates = (f"{p.options.interface_prefix}{n}" for n in numbers)
            name = next(c for c in candidates if c not in taken)
            taken.add(name)
        names[p.network.id] = name
    return names


def interfaces(placed: Sequence[Placed], known: Mapping[str, str]) -> list[Interface]:
    """In the order of the endpoints. Networks without an interface ("none") give none."""
    names = interface_names(placed, known)
    out4, out6 = preferred(placed, 4), preferred(placed, 6)
    found = []
    for p in placed:
        routes = []
        if p is out4:
            routes.append(Route(destination="0.0.0.0/0", gateway=p.endpoint.gateway_ipv4))
        if p is out6:
            routes.append(Route(destination="::/0", gateway=p.endpoint.gateway_ipv6))
        found.append(
            Interface(
                mac=p.endpoint.assigned_mac,
                name=names[p.network.id],
                addresses=[a for a in (p.endpoint.assigned_ipv4, p.endpoint.assigned_ipv6) if a],
                routes=routes,
                mtu=p.options.mtu,
            )
        )
    return found


def loopback_servers(wanted: Resolver) -> list[str]:
    """User's DNS servers on 127.0.0.0/8 or ::1: that is the container itself, not the host."""
    return [server for server in wanted.servers if _is_loopback(server)]


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return False


def resolver(placed: Sequence[Placed], wanted: Resolver, host: ResolvConf) -> Resolver:
    """The guest's resolv.conf: our server on the gateway of the default route, which asks the user's servers.

    A container without a network keeps what the user said. Servers on the container's own loopback can be
    asked only by the container, so they are listed for it as they are.
    """
    search = list(wanted.search or host.search)
    if search == ["."]:  # Docker's word for "none"
        search = []
    options = list(wanted.options or host.options)
    if not placed:
        servers = list(wanted.servers or [s for s in host.servers if not _is_loopback(s)])
        return Resolver(servers=servers, search=search, options=options)
    if loopback_servers(wanted):
        return Resolver(servers=list(wanted.servers), search=search, options=options)
    first = preferred(placed, 4) or preferred(placed, 6) or placed[0]
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    return Resolver(servers=[first.nameserver], search=search, options=options)
