"""Bridges, taps, addresses and interface sysctls of the host, by netlink.

Every interface of ours carries an alias ``mooring:<vch>:…``: that is how we
tell our own from another VCH's and from the host's, whatever they are called,
and what a restart reads back. A tap exists for others only after it has its
alias: it is made persistent last, and before that dies with our descriptor.

All calls block for a few milliseconds; callers run them in a thread. All are
idempotent: they bring an interface from whatever state a crash left it in to
the wanted one.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from portlayer.network.ipam import HostRoute

__all__ = ["BridgeLink", "LinkError", "Links", "TapLink", "alias_prefix"]

_PROC = Path("/proc/sys/net")
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFA_F_NODAD = 0x02
_RTN_UNICAST = 1
_RT_TABLE_LOCAL = 255
_SCOPE_LINK = 253


class LinkError(Exception):
    """An interface could not be brought to the wanted state; the message names it."""


@dataclass(frozen=True, kw_only=True)
class BridgeLink:
    name: str
    alias: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]  # CIDR
    ipv6: bool


@dataclass(frozen=True, kw_only=True)
class TapLink:
    name: str
    alias: str
    bridge: str
    mtu: int
    owner: int  # uid of the QEMU process
    isolated: bool  # may not talk to other isolated ports (icc=false)


def alias_prefix(vch: str) -> str:
    return f"mooring:{vch}:"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise LinkError(f"{what}: {error.args[-1] if error.args else error}") from error
    except OSError as error:
        raise LinkError(f"{what}: {error.strerror or error}") from error


class Links:
    """One VCH's interfaces, in the network namespace of the calling thread."""

    def __init__(self, vch: str) -> None:
        self._prefix = alias_prefix(vch)

    # -- what is there
    def ours(self) -> dict[str, str]:
        """Name -> alias of every interface of this VCH."""
        with _explained("list interfaces"), IPRoute() as route:
            aliases = {
                str(link.get_attr("IFLA_IFNAME")): str(link.get_attr("IFLA_IFALIAS") or "")
                for link in route.get_links()
            }
        return {name: alias for name, alias in aliases.items() if alias.startswith(self._prefix)}

    def alias(self, name: str) -> str | None:
        """The alias of an interface, "" when it has none, None when there is no such interface."""
        with _explained(f"look up {name}"), IPRoute() as route:
            link = self._find(route, name)
        return None if link is None else str(link.get_attr("IFLA_IFALIAS") or "")

    def routes(self) -> list[HostRoute]:
        """Where the host sends packets besides its default route, bridges of other VCHs included."""
        with _explained("list routes"), IPRoute() as route:
            names = {link["index"]: link for link in route.get_links()}
            found = []
            for entry in route.get_routes():
                destination, link = entry.get_attr("RTA_DST"), names.get(entry.get_attr("RTA_OIF"))
                local = entry.get_attr("RTA_TABLE") == _RT_TABLE_LOCAL
                if destination is None or entry["type"] != _RTN_UNICAST or local or not entry["dst_len"]:
                    continue
                if link is not None and str(link.get_attr("IFLA_IFALIAS") or "").startswith(self._prefix):
                    continue
                subnet = ipaddress.ip_network(f"{destination}/{entry['dst_len']}")
                if not subnet.is_link_local or subnet.version == 4:
                    name = "?" if link is None else str(link.get_attr("IFLA_IFNAME"))
                    found.append(HostRoute(destination=subnet, interface=name))
        return found

    # -- bridges
    def ensure_bridge(self, wanted: BridgeLink) -> None:
        """Make or repair a bridge. A bridge of that name that is not ours is refused, except one without
        an alias: that is ours, cut off before it got one."""
        with _explained(f"bridge {wanted.name}"), IPRoute() as route:
            link = self._find(route, wanted.name)
            if link is None:
                route.link("add", ifname=wanted.name, kind="bridge", address=wanted.mac, br_mcast_snooping=0)
                link = self._existing(route, wanted.name)
            self._check_bridge(link, wanted)
            index = link["index"]
            route.link("set", index=index, ifalias=wanted.alias, address=wanted.mac, mtu=wanted.mtu)
            self._sysctl("ipv6", wanted.name, "disable_ipv6", "0" if wanted.ipv6 else "1")
            self._sysctl("ipv6", wanted.name, "accept_ra", "0")
            # Its link-local address is needed at once: the kernel asks for neighbours from it, and with
            # duplicate detection the first seconds of a first container's traffic would be lost.
            self._sysctl("ipv6", wanted.name, "accept_dad", "0")
            self._sysctl("ipv4", wanted.name, "route_localnet", "1")
            route.link("set", index=index, state="up")
            self._ensure_addresses(route, index, wanted.addresses)

    def _check_bridge(self, link: Any, wanted: BridgeLink) -> None:
        info = link.get_attr("IFLA_LINKINFO")
        kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
        alias = link.get_attr("IFLA_IFALIAS") or ""
        if kind != "bridge" or alias not in ("", wanted.alias):
            raise LinkError(f"bridge {wanted.name}: an interface of that name exists and is not ours")

    def _ensure_addresses(self, route: IPRoute, index: int, wanted: tuple[str, ...]) -> None:
        interfaces = {ipaddress.ip_interface(text) for text in wanted}
        present = set()
        for entry in route.get_addr(index=index):
            if entry["scope"] != _SCOPE_LINK:
                present.add(ipaddress.ip_interface(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"))
        for interface in present - interfaces:
            route.addr("del", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
        for interface in interfaces - present:
            extra: dict[str, Any] = {}
            if interface.version == 4:
                extra["broadcast"] = str(interface.network[-1])
            else:  # a bridge without a running guest has no carrier: detection would never end
                extra["flags"] = _IFA_F_NODAD
            route.addr(
                "add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **extra
            )

    # -- taps
    def create_taps(self, wanted: Sequence[TapLink]) -> None:
        """Make taps that are down and not connected to anything, where they are missing."""
        with IPRoute() as route:
            for tap in wanted:
                with _explained(f"tap {tap.name}"):
                    link = self._find(route, tap.name)
                    if link is None:
                        self._create_tap(route, tap)
                        self._sysctl("ipv6", tap.name, "disable_ipv6", "1")
                    elif str(link.get_attr("IFLA_IFALIAS") or "") != tap.alias:
                        raise LinkError(f"tap {tap.name}: an interface of that name exists and is not ours")

    def connect_taps(self, wanted: Sequence[TapLink]) -> None:
        """Connect taps to their bridges and bring them up."""
        with IPRoute() as route:
            for tap in wanted:
                with _explained(f"tap {tap.name} on {tap.bridge}"):
                    master = self._existing(route, tap.bridge)["index"]
                    index = self._existing(route, tap.name)["index"]
                    route.link("set", index=index, master=master, mtu=tap.mtu)
                    route.brport("set", index=index, mode=1, isolated=int(tap.isolated))
                    route.link("set", index=index, state="up")

    def _create_tap(self, route: IPRoute, wanted: TapLink) -> None:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", wanted.name.encode(), flags))
            route.link("set", index=socket.if_nametoindex(wanted.name), ifalias=wanted.alias)
            fcntl.ioctl(descriptor, _TUNSETOWNER, wanted.owner)
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Delete an interface of ours. Idempotent; never deletes what is not ours."""
        with _explained(f"remove {name}"), IPRoute() as route:
            link = self._find(route, name)
            if link is not None and str(link.get_attr("IFLA_IFALIAS") or "").startswith(self._prefix):
                try:
                    route.link("del", index=link["index"])
                except NetlinkError as error:
                    if self._find(route, name) is not None:
                        raise LinkError(f"remove {name}: {error.args[-1]}") from error

    # -- sysctls of the whole namespace
    def ensure_forwarding(self, *, ipv6: bool) -> list[str]:
        """Make the host a router; says what it changed.

        Turning on IPv6 forwarding stops a host from taking its own addresses and default route from router
        advertisements, so the interfaces that do are told to go on (accept_ra 2).
        """
        changed = []
        with _explained("ip forwarding"):
            path = _PROC / "ipv4/ip_forward"
            if path.read_text().strip() == "0":
                path.write_text("1")
                changed.append("net.ipv4.ip_forward=1")
            path = _PROC / "ipv6/conf/all/forwarding"
            if ipv6 and path.read_text().strip() == "0":
                for interface in sorted((_PROC / "ipv6/conf").iterdir()):
                    accept = interface / "accept_ra"
                    if interface.name not in ("all", "default", "lo") and accept.read_text().strip() == "1":
                        accept.write_text("2")
                        changed.append(f"net.ipv6.conf.{interface.name}.accept_ra=2")
                path.write_text("1")
                changed.append("net.ipv6.conf.all.forwarding=1")
        return changed

    # -- helpers
    @staticmethod
    def _find(route: IPRoute, name: str) -> Any | None:
        try:
            return next(iter(route.link("get", ifname=name)), None)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def _existing(self, route: IPRoute, name: str) -> Any:
        link = self._find(route, name)
        if link is None:
            raise LinkError(f"interface {name} is not there")
        return link

    @staticmethod
    def _sysctl(family: str, interface: str, key: str, value: str) -> None:
        path = _PROC / family / "conf" / interface / key
        if not path.exists() and family == "ipv6":
            return  # a kernel without IPv6
        if path.read_text().strip() != value:
            path.write_text(value)
