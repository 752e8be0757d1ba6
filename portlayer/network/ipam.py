"""Addresses: which subnets a network may have, and which address a container gets.

Pure: no I/O, the host's routes are handed in. Invariant: an address is leased
to at most one owner, is inside its pool's range unless it was asked for by
name, and is never the network's, the broadcast, the gateway's or a reserved
address. The lowest free address is given out, so that leases are as dense and
as predictable as Docker's.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Pool, Reason

__all__ = [
    "Address",
    "AddressPool",
    "HostRoute",
    "Plan",
    "Subnet",
    "check_overlap",
    "choose_subnet",
    "mac_from_ipv4",
    "mac_from_text",
    "parse_mac",
    "plan",
    "unique_local_range",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_SMALLEST = {4: 30, 6: 126}  # longest prefix that has room for a gateway and a container
_RESERVED_CAP = 4096


@dataclass(frozen=True, kw_only=True)
class HostRoute:
    """A destination the host already reaches, and by which interface."""

    destination: Subnet
    interface: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A validated pool."""

    subnet: Subnet
    gateway: Address
    ip_range: Subnet
    reserved: dict[str, Address] = field(default_factory=dict)

    def message(self) -> Pool:
        return Pool(
            subnet=str(self.subnet),
            gateway=str(self.gateway),
            ip_range="" if self.ip_range == self.subnet else str(self.ip_range),
            reserved={name: str(address) for name, address in self.reserved.items()},
        )


def _invalid(message: str) -> PortLayerError:
    return PortLayerError(Reason.UNSPECIFIED, message)


def _parse_subnet(text: str, what: str) -> Subnet:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise _invalid(f"invalid {what} {text!r}: {error}") from error


def _parse_address(text: str, what: str) -> Address:
    try:
        address = ipaddress.ip_address(text.partition("/")[0])
    except ValueError as error:
        raise _invalid(f"invalid {what} {text!r}: {error}") from error
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise _invalid(f"invalid {what} {text!r}: an address with a zone")
    return address


def plan(pool: Pool) -> Plan:
    """Check what the user wants; the gateway defaults to the first address of the range."""
    subnet = _parse_subnet(pool.subnet, "subnet")
    if subnet.is_loopback or subnet.is_multicast or subnet.is_link_local or subnet.is_unspecified:
        raise _invalid(f"invalid subnet {pool.subnet!r}: not usable by containers")
    if not 1 <= subnet.prefixlen <= _SMALLEST[subnet.version]:
        raise _invalid(f"invalid subnet {pool.subnet!r}: no room for a gateway and a container")
    ip_range = _parse_subnet(pool.ip_range, "ip-range") if pool.ip_range else subnet
    if not _contains(subnet, ip_range):
        raise _invalid(f"no matching subnet for range {pool.ip_range}")
    if len(pool.reserved) > _RESERVED_CAP:
        raise _invalid(f"more than {_RESERVED_CAP} auxiliary addresses")
    reserved: dict[str, Address] = {}
    for name, text in pool.reserved.items():
        address = _parse_address(text, "auxiliary address")
        if address not in subnet:
            raise _invalid(f"no matching subnet for aux-address {text}")
        if address in reserved.values():
            raise PortLayerError(Reason.ADDRESS_IN_USE, "Address already in use")
        reserved[name] = address
    if pool.gateway:
        gateway = _parse_address(pool.gateway, "gateway")
        if gateway not in subnet:
            raise _invalid(f"no matching subnet for gateway {pool.gateway}")
        if gateway in _edges(subnet):
            raise _invalid(f"invalid gateway {pool.gateway!r}: the network's own address")
    else:
        taken = {*_edges(subnet), ip_range[0], *reserved.values()}
        gateway = next((a for a in _walk(ip_range) if a not in taken), ip_range[0])
        if gateway in _edges(subnet) or gateway in reserved.values():
            raise _invalid(f"no address for a gateway in range {ip_range}")
    if gateway in reserved.values():
        raise PortLayerError(Reason.ADDRESS_IN_USE, "Address already in use")
    return Plan(subnet=subnet, gateway=gateway, ip_range=ip_range, reserved=reserved)


def _contains(outer: Subnet, inner: Subnet) -> bool:
    return outer.version == inner.version and outer[0] <= inner[0] and inner[-1] <= outer[-1]  # type: ignore[operator]


def _edges(subnet: Subnet) -> tuple[Address, ...]:
    """Never given to a host: the network's address, and the broadcast address of IPv4."""
    return (subnet[0], subnet[-1]) if subnet.version == 4 else (subnet[0],)


def _walk(subnet: Subnet) -> Iterable[Address]:
    return (subnet[n] for n in range(min(subnet.num_addresses, 1 << 17)))


def check_overlap(subnet: Subnet, pools: Iterable[Subnet], routes: Iterable[HostRoute]) -> None:
    """Refuse a subnet that some other network or the host itself already uses."""
    if any(subnet.overlaps(other) for other in pools):
        raise PortLayerError(
            Reason.POOL_OVERLAP, "invalid pool request: Pool overlaps with other one on this address space"
        )
    for route in routes:
        if subnet.overlaps(route.destination):
            raise PortLayerError(
                Reason.POOL_OVERLAP,
                "invalid pool request: Pool overlaps with other one on this address space: "
                f"{subnet} and the host's route to {route.destination} by {route.interface}",
            )


def choose_subnet(
    supernet: Subnet, width: int, pools: Iterable[Subnet], routes: Iterable[HostRoute]
) -> Subnet:
    """The first subnet of ``width`` that neither a network nor the host uses."""
    taken = [net for net in (*pools, *(route.destination for route in routes)) if net.overlaps(supernet)]
    for candidate in supernet.subnets(new_prefix=width):
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise PortLayerError(
        Reason.POOL_OVERLAP,
        f"all predefined address pools have been fully subnetted: none is free in {supernet}",
    )


def unique_local_range(vch_id: str) -> ipaddress.IPv6Network:
    """The /48 of RFC 4193 that belongs to a VCH: the same one for ever, another for each VCH."""
    digest = hashlib.sha256(f"mooring-ula:{vch_id}".encode()).digest()
    return ipaddress.IPv6Network((bytes([0xFD]) + digest[:5] + bytes(10), 48))


def mac_from_ipv4(address: ipaddress.IPv4Address) -> str:
    """Docker's scheme: one address, one MAC, so that a neighbour's ARP entry never goes stale."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def mac_from_text(text: str) -> str:
    """A MAC of the same family for an endpoint without IPv4."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + hashlib.sha256(text.encode()).digest()[:4])


def parse_mac(text: str) -> str:
    parts = text.lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(p) == 2 and set(p) <= set("0123456789abcdef") for p in parts):
        raise _invalid(f"invalid MAC address {text!r}")
    first = int(parts[0], 16)
    if first & 1 or all(p == "00" for p in parts):
        raise _invalid(f"invalid MAC address {text!r}: not a unicast address")
    return ":".join(parts)


class AddressPool:
    """The leases of one pool of one network."""

    def __init__(self, pool: Plan, *, network: str) -> None:
        self.plan = pool
        self._network = network  # "name (id)" for messages
        self._owners: dict[Address, str] = {}
        self._blocked = {pool.gateway, *_edges(pool.subnet), *pool.reserved.values()}
        self._lowest = 0  # no address of the range below this index is free

    def owner(self, address: Address) -> str | None:
        return self._owners.get(address)

    def take(self, owner: str, wanted: str = "") -> Address:
        """Lease ``wanted``, or the lowest free address of the range.

        An owner that asks again for what it has gets it again.
        """
        address = self._check(owner, wanted) if wanted else self._first_free()
        self._owners[address] = owner
        return address

    def _check(self, owner: str, wanted: str) -> Address:
        address = _parse_address(wanted, "IP address")
        if address not in self.plan.subnet:
            raise _invalid(f"no configured subnet contains IP address {address}")
        if address in self._blocked or self._owners.get(address, owner) != owner:
            raise PortLayerError(Reason.ADDRESS_IN_USE, f"Address already in use: {address}")
        return address

    def _first_free(self) -> Address:
        span = self.plan.ip_range
        for index in range(self._lowest, span.num_addresses):
            address = span[index]
            if address not in self._owners and address not in self._blocked:
                self._lowest = index + 1
                return address
        self._lowest = span.num_addresses
        family = f"IPv{span.version}"
        raise PortLayerError(
            Reason.ADDRESS_IN_USE,
            f"no available {family} addresses on this network's address pools: {self._network}",
        )

    def free(self, address: Address) -> None:
        """Give a lease back. Idempotent."""
        if self._owners.pop(address, None) is not None and address in self.plan.ip_range:
            self._lowest = min(self._lowest, int(address) - int(self.plan.ip_range[0]))
