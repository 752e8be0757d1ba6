"""Which containers are plugged in, and all that follows from it: taps, rules, names, flows. Pure.

A :class:`Plug` is immutable; a change makes another one, so that a failed
change is undone by putting the old one back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from portlayer.errors import PortLayerError
from portlayer.network.attachment import Attachment, PluggedNic
from portlayer.network.guest import Placed, interface_names, loopback_servers, preferred
from portlayer.network.links import TapLink, alias_prefix
from portlayer.network.names import Client, Member, Upstreams
from portlayer.network.ports import canonical
from portlayer.network.registry import Registry
from portlayer.network.ruleset import Guest, Published
from portlayer.portlayer_pb2 import Endpoint, Reason

__all__ = ["Plug", "Switch", "bridge_alias", "place", "preferred_endpoint", "tap_alias"]


def bridge_alias(vch: str, network: str) -> str:
    return f"{alias_prefix(vch)}bridge:{network}"


def tap_alias(vch: str, container: str, network: str, interface: str) -> str:
    """Also what a restart learns from: the name that the guest knows the NIC by must not change."""
    return f"{alias_prefix(vch)}tap:{container}:{network}:{interface}"


def place(registry: Registry, endpoints: Iterable[Endpoint]) -> list[Placed]:
    """Endpoints that have an interface, with their networks, in order."""
    entries = ((endpoint, registry.get(endpoint.network)) for endpoint in endpoints)
    return [
        Placed(
            endpoint=endpoint,
            network=entry.network,
            options=entry.options,
            nameserver=entry.gateway(4) or entry.gateway(6),
        )
        for endpoint, entry in entries
        if entry.has_bridge
    ]


def preferred_endpoint(registry: Registry, endpoints: Iterable[Endpoint], version: int) -> Placed | None:
    return preferred(place(registry, endpoints), version)


@dataclass(frozen=True, kw_only=True)
class Plug:
    attachment: Attachment  # with the leased endpoints of all that is plugged
    placed: dict[str, Placed] = field(default_factory=dict)  # by network ID
    taps: dict[str, str] = field(default_factory=dict)
    interface_names: dict[str, str] = field(default_factory=dict)

    def tap_names(self) -> set[str]:
        return set(self.taps.values())

    def nics(self, networks: Collection[str]) -> list[PluggedNic]:
        return [
            PluggedNic(
                tap=self.taps[p.network.id],
                mac=p.endpoint.assigned_mac,
                bridge=p.network.bridge,
                network=p.network.id,
                mtu=p.options.mtu,
            )
            for p in self.placed.values()
            if p.network.id in networks
        ]

    def links(self, *, owner: int, vch: str) -> list[TapLink]:
        container = self.attachment.container
        return [
            TapLink(
                name=self.taps[p.network.id],
                alias=tap_alias(vch, container, p.network.id, self.interface_names[p.network.id]),
                bridge=p.network.bridge,
                mtu=p.options.mtu,
                owner=owner,
                isolated=not p.options.icc,
            )
            for p in self.placed.values()
        ]

    def guests(self) -> list[Guest]:
        return [
            Guest(tap=self.taps[p.network.id], mac=p.endpoint.assigned_mac, ipv4=p.ipv4, ipv6=p.ipv6)
            for p in self.placed.values()
        ]

    def published(self) -> list[Published]:
        """Nothing when the container is on internal networks only: they are not reachable, as in Docker."""
        out4, out6 = self._preferred(4), self._preferred(6)
        if out4 is None and out6 is None:
            return []
        default = out4.options.host_binding if out4 is not None else ""
        return [
            Published(
                protocol=port.protocol or "tcp",
                address=canonical(port.host_ip or default),
                port=port.assigned_port,
                container_port=port.container_port,
                ipv4=out4.ipv4 if out4 is not None else "",
                ipv6=out6.ipv6 if out6 is not None else "",
            )
            for port in self.attachment.ports
            if port.assigned_port
        ]

    def _preferred(self, version: int) -> Placed | None:
        return preferred(list(self.placed.values()), version)

    def rules(self) -> tuple[list[Guest], list[Published]]:
        return self.guests(), self.published()

    def ports(self) -> set[tuple[str, int, str]]:
        """Published (protocol, port) pairs and where they lead."""
        return {(port.protocol, port.port, f"{port.ipv4} {port.ipv6}") for port in self.published()}

    def client(self) -> Client:
        attachment = self.attachment
        first = self._preferred(4) or self._preferred(6)
        ordered = sorted(self.placed.values(), key=lambda p: p is not first)
        own = loopback_servers(attachment.resolver)
        return Client(
            container=attachment.container,
            members=tuple(self._member(p) for p in ordered),
            upstreams=Upstreams(
                servers=tuple(s for s in attachment.resolver.servers if s not in own),
                external=any(not p.network.internal for p in ordered),
            ),
        )

    def _member(self, p: Placed) -> Member:
        attachment = self.attachment
        links = (link.partition(":") for link in p.endpoint.links)
        return Member(
            container=attachment.container,
            name=attachment.name,
            network=p.network.id,
            network_name=p.network.name,
            ipv4=p.ipv4,
            ipv6=p.ipv6,
            aliases=frozenset((*p.endpoint.aliases, attachment.hostname)),
            links=tuple((target, alias) for target, _, alias in links),
        )

    def without(self, network: str) -> Plug:
        kept = [e for e in self.attachment.endpoints if e.network != network]
        return replace(
            self,
            attachment=replace(self.attachment, endpoints=kept),
            placed={n: p for n, p in self.placed.items() if n != network},
            taps={n: t for n, t in self.taps.items() if n != network},
            interface_names={n: i for n, i in self.interface_names.items() if n != network},
        )


class Switch:
    def __init__(self, registry: Registry, *, vch: str, owner: int) -> None:
        self._registry = registry
        self._vch = vch
        self._owner = owner  # uid of the QEMU processes
        self._plugs: dict[str, Plug] = {}

    def all(self) -> list[Plug]:
        return list(self._plugs.values())

    def find(self, container: str) -> Plug | None:
        return self._plugs.get(container)

    def on(self, network: str) -> list[Plug]:
        return [plug for plug in self._plugs.values() if network in plug.placed]

    def is_plugged(self, container: str, network: str) -> bool:
        plug = self._plugs.get(container)
        return plug is not None and network in plug.placed

    def taps(self) -> set[str]:
        return {tap for plug in self._plugs.values() for tap in plug.taps.values()}

    def links(self, plug: Plug) -> list[TapLink]:
        return plug.links(owner=self._owner, vch=self._vch)

    def put(self, container: str, plug: Plug | None) -> None:
        if plug is None:
            self._plugs.pop(container, None)
        else:
            self._plugs[container] = plug

    def plug(self, attachment: Attachment, *, present: Mapping[str, str] | None = None) -> Plug:
        """Plug a container in, or add to what it has: an endpoint stays plugged until it is unplugged, named
        or not, for its NIC may still be in the VM. ``present``: interfaces (name -> alias) that a former
        life left; a running guest keeps its taps and the names of its interfaces.

        Raises:
            PortLayerError: nothing changed.
        """
        before = self._plugs.get(attachment.container)
        taps, names = self._left_over(attachment.container, present or {})
        endpoints = list(attachment.endpoints)
        if before is not None:
            taps, names = dict(before.taps), before.interface_names
            endpoints = _with_unnamed(endpoints, before)
        placed = {p.network.id: p for p in place(self._registry, endpoints)}
        taken = self.taps() | set(taps.values())
        for network, p in placed.items():
            if network not in taps:
                taps[network] = _tap_name(attachment.container, p.endpoint.endpoint_id, taken)
                taken.add(taps[network])
        plug = Plug(
            attachment=replace(attachment, endpoints=endpoints),
            placed=placed,
            taps={network: taps[network] for network in placed},
            interface_names=interface_names(list(placed.values()), names),
        )
        _check_ports(plug)
        self._plugs[attachment.container] = plug
        return plug

    def _left_over(self, container: str, present: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        taps, names = {}, {}
        prefix = f"{alias_prefix(self._vch)}tap:{container}:"
        for tap, alias in present.items():
            if alias.startswith(prefix):
                network, _, interface = alias.removeprefix(prefix).partition(":")
                taps[network], names[network] = tap, interface
        return taps, names

    def rename(self, plug: Plug, attachment: Attachment) -> Plug:
        """The same plug with new names; endpoints, taps and rules stay."""
        plugged = [e for e in attachment.endpoints if e.network in plug.placed]
        endpoints = _with_unnamed(plugged, plug)
        renamed = replace(
            plug,
            attachment=replace(
                plug.attachment,
                name=attachment.name,
                hostname=attachment.hostname,
                endpoints=endpoints,
                resolver=attachment.resolver,
            ),
            placed={p.network.id: p for p in place(self._registry, endpoints)},
        )
        self._plugs[attachment.container] = renamed
        return renamed


def _with_unnamed(endpoints: Iterable[Endpoint], before: Plug) -> list[Endpoint]:
    """And those that are plugged, but not named any more."""
    listed = list(endpoints)
    named = {endpoint.network for endpoint in listed}
    return listed + [e for e in before.attachment.endpoints if e.network not in named]


def _tap_name(container: str, endpoint_id: str, taken: Collection[str]) -> str:
    candidates: Sequence[str] = [endpoint_id[n : n + 2] for n in range(len(endpoint_id) - 1)]
    for index in (*candidates, *(f"{n:02x}" for n in range(256))):
        name = f"mt{container[:8]}{index}"
        if name not in taken:
            return name
    raise PortLayerError(Reason.LIMIT_EXCEEDED, f"container {container[:12]} has too many networks")


def _check_ports(plug: Plug) -> None:
    """An IPv6 host address leads to an IPv6 container only: nftables does not translate between families."""
    families = {p.address: ipaddress.ip_address(p.address).version for p in plug.published() if p.address}
    for port in plug.published():
        if port.address and not (port.ipv4 if families[port.address] == 4 else port.ipv6):
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"publishing on {port.address}:{port.port} needs a network with IPv{families[port.address]}",
            )
