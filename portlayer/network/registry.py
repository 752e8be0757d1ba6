"""The networks of a VCH and their leases, in memory. Pure: no files, no interfaces.

Invariant: every address in ``leases`` is taken in its network's pool by that
container, and no other address is taken.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from portlayer.errors import PortLayerError
from portlayer.network.ipam import (
    AddressPool,
    HostRoute,
    Plan,
    Subnet,
    check_overlap,
    choose_subnet,
    mac_from_ipv4,
    mac_from_text,
    parse_mac,
    plan,
)
from portlayer.network.options import BridgeOptions, parse_endpoint_options, parse_options
from portlayer.network.ruleset import Bridge
from portlayer.portlayer_pb2 import Endpoint, Network, Pool, Reason

__all__ = ["Entry", "Registry", "bridge_mac", "bridge_name"]

_log = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{64}")
_NAME_CAP = 255
_NETWORKS_CAP = 4096
_NETWORK_BYTES = 1 << 20  # labels and metadata; well below what the store reads again
_ALIASES_CAP = 256


def bridge_name(network_id: str) -> str:
    return f"mr{network_id[:10]}"


@dataclass(kw_only=True)
class Entry:
    """One network. ``pools`` by IP version, at most one each."""

    network: Network
    options: BridgeOptions
    pools: dict[int, AddressPool] = field(default_factory=dict)
    macs: dict[str, str] = field(default_factory=dict)  # MAC -> container
    dns_port: int = 53

    @property
    def id(self) -> str:
        return self.network.id

    @property
    def has_bridge(self) -> bool:
        return self.network.type == "bridge"

    def gateway(self, version: int) -> str:
        pool = self.pools.get(version)
        return "" if pool is None else str(pool.plan.gateway)

    def gateways(self) -> tuple[str, ...]:
        return tuple(str(pool.plan.gateway) for pool in self.pools.values())

    def gateway_cidrs(self) -> tuple[str, ...]:
        return tuple(f"{pool.plan.gateway}/{pool.plan.subnet.prefixlen}" for pool in self.pools.values())

    def subnets(self) -> list[Subnet]:
        return [pool.plan.subnet for pool in self.pools.values()]

    def rules(self) -> Bridge:
        def subnet(version: int) -> str:
            pool = self.pools.get(version)
            return "" if pool is None else str(pool.plan.subnet)

        return Bridge(
            interface=self.network.bridge,
            subnet4=subnet(4),
            gateway4=self.gateway(4),
            subnet6=subnet(6),
            gateway6=self.gateway(6),
            internal=self.network.internal,
            icc=self.options.icc,
            masquerade=self.options.masquerade,
            dns_port=self.dns_port,
        )


class Registry:
    def __init__(self, *, ranges: dict[int, Subnet], width: int) -> None:
        self._ranges = ranges  # IP version -> where subnets are cut from
        self._widths = {4: width, 6: 64}
        self.entries: dict[str, Entry] = {}
        self.leases: dict[str, dict[str, Endpoint]] = {}  # container -> network -> endpoint

    # -- networks
    def get(self, ref: str) -> Entry:
        entry = self.entries.get(ref)
        if entry is None:
            raise PortLayerError(Reason.NO_SUCH_NETWORK, f"network {ref} not found")
        return entry

    def by_name(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries.values() if entry.network.name == name), None)

    def prepare(self, wanted: Network, routes: Iterable[HostRoute]) -> Entry:
        """Check a network that somebody wants and fill in all that is open. Changes nothing."""
        network = Network()
        network.CopyFrom(wanted)
        del network.endpoints[:]
        if not network.name or len(network.name) > _NAME_CAP:
            raise PortLayerError(Reason.UNSPECIFIED, f"invalid network name {network.name[:80]!r}")
        if self.by_name(network.name) is not None:
            raise PortLayerError(Reason.NAME_IN_USE, f"network with name {network.name} already exists")
        if network.ByteSize() > _NETWORK_BYTES:
            raise PortLayerError(
                Reason.LIMIT_EXCEEDED, f"network {network.name}: more than {_NETWORK_BYTES} bytes"
            )
        if len(self.entries) >= _NETWORKS_CAP:
            raise PortLayerError(Reason.LIMIT_EXCEEDED, f"more than {_NETWORKS_CAP} networks")
        network.id = network.id or secrets.token_hex(32)
        if not _ID.fullmatch(network.id):
            raise PortLayerError(Reason.UNSPECIFIED, f"invalid network ID {network.id[:80]!r}")
        if network.id in self.entries:
            raise PortLayerError(Reason.NAME_IN_USE, f"network with ID {network.id} already exists")
        network.type = network.type or "bridge"
        if network.type == "none" and network.builtin:
            return Entry(network=network, options=BridgeOptions())
        if network.type != "bridge":
            raise PortLayerError(
                Reason.NOT_SUPPORTED, f"network {network.name}: type {network.type!r} is not supported"
            )
        options = parse_options(network.options)
        network.bridge = options.name or bridge_name(network.id)
        if any(entry.network.bridge == network.bridge for entry in self.entries.values()):
            raise PortLayerError(Reason.NAME_IN_USE, f"bridge {network.bridge} already exists")
        plans = self._plans(network, list(routes))
        del network.pools[:]
        network.pools.extend(p.message() for p in plans)
        return self._entry(network, options, plans)

    def _plans(self, network: Network, routes: Sequence[HostRoute]) -> list[Plan]:
        used = [subnet for entry in self.entries.values() for subnet in entry.subnets()]
        versions = [4, 6] if network.enable_ipv6 else [4]
        plans: dict[int, Plan] = {}
        open_pools: list[Pool] = []
        for pool in network.pools:
            if not pool.subnet:
                open_pools.append(pool)
                continue
            found = plan(pool)
            version = found.subnet.version
            if version not in versions:
                raise PortLayerError(
                    Reason.UNSPECIFIED,
                    f"subnet {pool.subnet}: IPv6 is not enabled for network {network.name}",
                )
            if version in plans:
                raise PortLayerError(Reason.POOL_OVERLAP, "bridge driver doesn't support multiple subnets")
            check_overlap(found.subnet, used, routes)
            plans[version] = found
        for pool in open_pools:
            if pool.gateway or pool.ip_range or pool.reserved:
                raise PortLayerError(
                    Reason.UNSPECIFIED, "gateway, ip-range and aux-address need a subnet that contains them"
                )
        for family in versions:
            if family not in plans:
                subnet = choose_subnet(self._ranges[family], self._widths[family], used, routes)
                plans[family] = plan(Pool(subnet=str(subnet)))
        return [plans[family] for family in versions]

    @staticmethod
    def _entry(network: Network, options: BridgeOptions, plans: Sequence[Plan]) -> Entry:
        label = f"{network.name} ({network.id})"
        pools: dict[int, AddressPool] = {p.subnet.version: AddressPool(p, network=label) for p in plans}
        return Entry(network=network, options=options, pools=pools)

    def restore(self, network: Network) -> Entry:
        """A network from its file: checked when it was made, not against others again."""
        options = parse_options(network.options)
        entry = self._entry(network, options, [plan(pool) for pool in network.pools])
        self.entries[network.id] = entry
        return entry

    def add(self, entry: Entry) -> None:
        self.entries[entry.id] = entry

    def remove(self, network_id: str) -> None:
        """The network and the leases on it (of containers that do not run)."""
        self.entries.pop(network_id, None)
        for leases in self.leases.values():
            leases.pop(network_id, None)

    # -- leases
    def allocate(self, container: str, endpoint: Endpoint) -> Endpoint:
        """The endpoint with everything assigned. What it had assigned before is kept where it is free."""
        entry = self.get(endpoint.network)
        held = self.leases.get(container, {}).get(entry.id)
        if held is not None and self._satisfies(held, endpoint):
            filled = Endpoint()
            filled.CopyFrom(endpoint)
            for name in _ASSIGNED:
                setattr(filled, name, getattr(held, name))
            self.leases[container][entry.id] = filled
            return filled
        if len(endpoint.aliases) > _ALIASES_CAP or len(endpoint.links) > _ALIASES_CAP:
            raise PortLayerError(Reason.LIMIT_EXCEEDED, f"more than {_ALIASES_CAP} aliases or links")
        parse_endpoint_options(endpoint.driver_options)
        if held is not None:
            self.release(container, entry.id)
        try:
            filled = self._assign(container, entry, endpoint)
        except PortLayerError:
            if held is not None:
                self._assign(container, entry, held)
                self.leases.setdefault(container, {})[entry.id] = held
            raise
        self.leases.setdefault(container, {})[entry.id] = filled
        return filled

    @staticmethod
    def _satisfies(held: Endpoint, wanted: Endpoint) -> bool:
        pairs = (
            (wanted.ipv4 or wanted.assigned_ipv4, held.assigned_ipv4),
            (wanted.ipv6 or wanted.assigned_ipv6, held.assigned_ipv6),
        )
        if any(a and _address(a) != _address(b) for a, b in pairs):
            return False
        mac = wanted.mac or wanted.assigned_mac
        return not mac or parse_mac(mac) == held.assigned_mac

    def _assign(self, container: str, entry: Entry, endpoint: Endpoint) -> Endpoint:
        filled = Endpoint()
        filled.CopyFrom(endpoint)
        for name in _ASSIGNED:
            setattr(filled, name, "")
        filled.endpoint_id = endpoint.endpoint_id or secrets.token_hex(32)
        if not entry.has_bridge:
            if endpoint.ipv4 or endpoint.ipv6 or endpoint.mac:
                raise PortLayerError(
                    Reason.NOT_SUPPORTED, f"network {entry.network.name} has no addresses to choose from"
                )
            return filled
        taken: list[tuple[AddressPool, ipaddress.IPv4Address | ipaddress.IPv6Address]] = []
        try:
            for version, wish, before in (
                (4, endpoint.ipv4, endpoint.assigned_ipv4),
                (6, endpoint.ipv6, endpoint.assigned_ipv6),
            ):
                pool = entry.pools.get(version)
                if pool is None:
                    if wish:
                        raise PortLayerError(
                            Reason.UNSPECIFIED, f"no configured subnet contains IP address {wish}"
                        )
                    continue
                address = self._take(pool, container, wish, before)
                taken.append((pool, address))
                setattr(filled, f"assigned_ipv{version}", f"{address}/{pool.plan.subnet.prefixlen}")
                if not entry.network.internal:
                    setattr(filled, f"gateway_ipv{version}", str(pool.plan.gateway))
            filled.assigned_mac = self._mac(container, entry, filled, endpoint)
        except PortLayerError:
            for pool, address in taken:
                pool.free(address)
            raise
        return filled

    @staticmethod
    def _take(
        pool: AddressPool, container: str, wish: str, before: str
    ) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        if not wish and before:
            try:
                return pool.take(container, before)
            except PortLayerError as error:
                _log.info("%s cannot have %s again: %s", container[:12], before, error)
        return pool.take(container, wish)

    @staticmethod
    def _mac(container: str, entry: Entry, filled: Endpoint, wanted: Endpoint) -> str:
        if wanted.mac:
            mac = parse_mac(wanted.mac)
        elif wanted.assigned_mac and filled.assigned_ipv4 == wanted.assigned_ipv4:
            mac = parse_mac(wanted.assigned_mac)  # what it has had with this address
        elif filled.assigned_ipv4:
            mac = mac_from_ipv4(ipaddress.IPv4Address(_address(filled.assigned_ipv4)))
        else:
            mac = mac_from_text(filled.endpoint_id)
        if mac == bridge_mac(entry) or entry.macs.get(mac, container) != container:
            raise PortLayerError(Reason.ADDRESS_IN_USE, f"MAC address already in use: {mac}")
        entry.macs[mac] = container
        return mac

    def release(self, container: str, network: str | None = None) -> None:
        """Idempotent."""
        leases = self.leases.get(container, {})
        for network_id in [network] if network is not None else list(leases):
            endpoint = leases.pop(network_id, None)
            entry = self.entries.get(network_id)
            if endpoint is None or entry is None:
                continue
            for version, text in ((4, endpoint.assigned_ipv4), (6, endpoint.assigned_ipv6)):
                if text and version in entry.pools:
                    entry.pools[version].free(ipaddress.ip_address(_address(text)))
            if entry.macs.get(endpoint.assigned_mac) == container:
                del entry.macs[endpoint.assigned_mac]
        if not leases:
            self.leases.pop(container, None)


_ASSIGNED = ("assigned_ipv4", "assigned_ipv6", "assigned_mac", "gateway_ipv4", "gateway_ipv6", "endpoint_id")


def bridge_mac(entry: Entry) -> str:
    """The bridge's own MAC, pinned: else it would change with the ports that come and go."""
    gateway = entry.gateway(4)
    return mac_from_ipv4(ipaddress.IPv4Address(gateway)) if gateway else mac_from_text(entry.id)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.partition("/")[0]))
    except ValueError as error:
        raise PortLayerError(Reason.UNSPECIFIED, f"invalid IP address {text!r}") from error
