"""The VM's interfaces, brought to a wanted set: at boot, and whenever the port layer says so.

`apply` compares with what is there and changes the difference, so a repeated
call is harmless and a connection over an unchanged interface survives it.
"""

from __future__ import annotations

import _socket
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from tether.cgroup import write
from tether.loop import Loop
from tether.netlink import (
    AF_INET,
    AF_INET6,
    Address,
    Netlink,
    RouteEntry,
    format_address,
    interface_index,
    parse_cidr,
)
from tether.tether_pb2 import Interface, Route
from tether.uevents import Uevents

if TYPE_CHECKING:
    from tether.leasing import Leasing

__all__ = ["Network", "NetworkError", "announce"]

_LOOPBACK = 1  # the kernel's first interface
_ETH_P_IP, _ETH_P_ARP = 0x0800, 0x0806
_NIC_SECONDS = 5.0


class NetworkError(Exception):
    """The wanted set cannot be had; the text names the interface and the reason."""


class Network:
    """What the VM's interfaces should be, and what DHCP made of it."""

    def __init__(self, loop: Loop, *, log: Callable[[str], None], on_change: Callable[[], None]) -> None:
        """``on_change`` is called when a lease came, changed or went after `apply` had returned."""
        self._loop = loop
        self._log = log
        self._on_change = on_change
        self._wanted: list[Interface] = []
        self._clients: dict[str, Leasing] = {}

    def loopback_up(self) -> None:
        with Netlink() as netlink:
            netlink.set_link(_LOOPBACK, up=True)

    def apply(self, wanted: list[Interface], *, hostname: str) -> None:
        """Make the interfaces what ``wanted`` says, all of them; others lose their addresses and go down.

        Raises:
            NetworkError: names the interface. Those before it are as wanted.
        """
        found = _find_all([interface.mac for interface in wanted])
        with Netlink() as netlink:
            self._quiet_others(netlink, {index for _, index in found.values()})
            for interface in wanted:
                name, index = found[interface.mac]
                try:
                    _configure(netlink, interface, name, index)
                except (OSError, ValueError) as error:
                    raise NetworkError(f"{interface.name} ({interface.mac}): {error}") from error
        self._wanted = wanted
        leased = {interface.mac: interface for interface in wanted if interface.dhcp}
        for mac in set(self._clients) - set(leased):
            self._clients.pop(mac).stop()
        for mac, interface in leased.items():
            if mac not in self._clients:
                index = found[mac][1]
                # Late, because few networks are like that and the module is 15 ms of every boot.
                from tether.leasing import Leasing

                self._clients[mac] = Leasing(
                    self._loop,
                    interface,
                    index=index,
                    hostname=hostname,
                    log=self._log,
                    on_change=self._on_change,
                )

    @property
    def pending(self) -> list[str]:
        """Names of interfaces that wait for a lease."""
        return [leasing.name for leasing in self._clients.values() if leasing.lease is None]

    def interfaces(self) -> list[Interface]:
        """The wanted set, with leased addresses and routes filled in."""
        result = []
        for interface in self._wanted:
            filled = Interface()
            filled.CopyFrom(interface)
            leasing = self._clients.get(interface.mac)
            if leasing is not None and leasing.lease is not None:
                lease = leasing.lease
                filled.addresses.append(f"{format_address(lease.address)}/{lease.prefix}")
                if lease.router:
                    filled.routes.append(Route(destination="0.0.0.0/0", gateway=format_address(lease.router)))
            result.append(filled)
        return result

    def leased_servers(self) -> tuple[list[str], list[str]]:
        """DNS servers and search domains that DHCP gave."""
        leases = [leasing.lease for leasing in self._clients.values() if leasing.lease is not None]
        servers = [format_address(server) for lease in leases for server in lease.servers]
        return servers, [lease.domain for lease in leases if lease.domain]

    @staticmethod
    def _quiet_others(netlink: Netlink, kept: set[int]) -> None:
        for name in os.listdir("/sys/class/net"):
            # Only real NICs: the workload may have made bridges and tunnels of its own.
            if not os.path.exists(f"/sys/class/net/{name}/device"):
                continue
            index = _socket.if_nametoindex(name)
            if index not in kept:
                for address in netlink.addresses(index):
                    netlink.remove_address(index, address)
                netlink.set_link(index, up=False)


def _find_all(macs: list[str]) -> dict[str, tuple[str, int]]:
    """Name and number of the NIC of each hardware address, waiting for hot-added ones."""

    def look() -> dict[str, tuple[str, int]] | None:
        found = {mac: place for mac in macs if (place := interface_index(mac)) is not None}
        return found if len(found) == len(set(macs)) else None

    result = look()
    if result is None:
        uevents = Uevents()
        try:
            result = uevents.wait_for(look, seconds=_NIC_SECONDS)
        finally:
            uevents.close()
    if result is None:
        missing = [mac for mac in macs if interface_index(mac) is None]
        raise NetworkError(f"no NIC with hardware address {', '.join(missing)} within {_NIC_SECONDS:g} s")
    return result


def _configure(netlink: Netlink, interface: Interface, name: str, index: int) -> None:
    addresses = [parse_cidr(text) for text in interface.addresses]
    routes = [_route(route) for route in interface.routes]
    if interface.name and interface.name != name:
        _rename(netlink, index, interface.name)
        name = interface.name
    has_v6 = interface.dhcp or any(address.family == AF_INET6 for address in addresses)
    write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "0" if has_v6 else "1")
    write(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "1" if interface.dhcp else "0")
    netlink.set_link(index, up=True, mtu=interface.mtu)
    if interface.dhcp and not addresses:
        return  # the lease is the truth
    present = netlink.addresses(index)
    for address in present:
        if address not in addresses:
            netlink.remove_address(index, address)
    for address in addresses:
        if address not in present:
            netlink.add_address(index, address)
            announce(index, interface.mac, address)
    for old in netlink.routes(index):
        if old not in routes:
            netlink.remove_route(index, old)
    # On-link routes first: a gateway may be reached through one.
    for route in sorted(routes, key=lambda route: bool(route.gateway)):
        netlink.add_route(index, route)


def _route(route: Route) -> RouteEntry:
    gateway = parse_cidr(route.gateway).raw if route.gateway else b""
    return RouteEntry(parse_cidr(route.destination), gateway)


def _rename(netlink: Netlink, index: int, name: str) -> None:
    try:
        other = _socket.if_nametoindex(name)
    except OSError:
        other = 0
    if other and other != index:
        netlink.set_link(other, up=False)
        netlink.set_link(other, name=f"old{other}")
    netlink.set_link(index, up=False)
    netlink.set_link(index, name=name)


def announce(index: int, mac: str, address: Address) -> None:
    """Tell the neighbours where the address lives now: gratuitous ARP, or an unsolicited advertisement."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    if address.family == AF_INET:
        # RFC 5944 §4.6: a request for one's own address, broadcast.
        packet = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, 1)
        packet += hardware + address.raw + bytes(6) + address.raw
        raw = _socket.socket(_socket.AF_PACKET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        try:
            raw.sendto(packet, (_socket.if_indextoname(index), _ETH_P_ARP, 0, 0, b"\xff" * 6))
        finally:
            raw.close()
        return
    # RFC 4861 §4.4, override flag; the kernel fills in the checksum of an ICMPv6 socket.
    icmp = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address.raw + struct.pack("!BB", 2, 1) + hardware
    v6 = _socket.socket(_socket.AF_INET6, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_ICMPV6)
    try:
        v6.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_MULTICAST_HOPS, 255)
        v6.sendto(icmp, ("ff02::1", 0, 0, index))
    finally:
        v6.close()
