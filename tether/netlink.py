"""A small rtnetlink: what a container VM's interfaces need and nothing else.

pyroute2 does all of it and costs PID 1 1.3 s and 20 MB. Messages are built by
pure functions; `Netlink` sends one and waits for the kernel's answer, which
comes at once.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tether.linux import SyscallError

__all__ = ["Address", "Netlink", "RouteEntry", "attributes", "format_address", "parse_cidr"]

AF_INET, AF_INET6 = _socket.AF_INET, _socket.AF_INET6
# linux/netlink.h
_NETLINK_ROUTE = 0
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _CREATE = 0x100, 0x400
# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
_RT_TABLE_MAIN = 254
_RTPROT_KERNEL, _RTPROT_STATIC = 2, 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTN_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
# linux/if_addr.h, if_link.h, if.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD = 0x02
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_IFF_UP = 1
_SCOPE_LINK_LOCAL = 253

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")


class Address(NamedTuple):
    family: int
    raw: bytes
    prefix: int

    def __str__(self) -> str:
        return f"{format_address(self.raw)}/{self.prefix}"


class RouteEntry(NamedTuple):
    """A route through one interface; an empty gateway is on link."""

    destination: Address
    gateway: bytes


def parse_cidr(text: str) -> Address:
    """ "10.0.0.2/16" or an address alone.

    Raises:
        ValueError: names the text.
    """
    host, separator, length = text.partition("/")
    family = AF_INET6 if ":" in host else AF_INET
    try:
        raw = _socket.inet_pton(family, host)
    except OSError as error:
        raise ValueError(f"{text!r} is no address") from error
    if not separator:
        return Address(family, raw, len(raw) * 8)
    if not length.isdigit() or int(length) > len(raw) * 8:
        raise ValueError(f"{text!r} has no valid prefix length")
    return Address(family, raw, int(length))


def format_address(raw: bytes) -> str:
    return _socket.inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw)


# ---------------------------------------------------------------- messages, pure


def attribute(kind: int, data: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message, by kind. A damaged tail is left out."""
    found = {}
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size or position + length > len(data):
            break
        found[kind & 0x3FFF] = data[position + _ATTRIBUTE.size : position + length]
        position += length + -length % 4
    return found


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, sequence, body) of each message in what one read gave."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size or position + length > len(data):
            return
        yield kind, sequence, data[position + _HEADER.size : position + length]
        position += length + -length % 4


def link_body(index: int, *, up: bool | None = None, name: str = "", mtu: int = 0) -> bytes:
    change = 0 if up is None else _IFF_UP
    body = _LINK.pack(0, 0, index, _IFF_UP if up else 0, change)
    if name:
        body += attribute(_IFLA_IFNAME, name.encode() + b"\0")
    if mtu:
        body += attribute(_IFLA_MTU, struct.pack("=I", mtu))
    return body


def address_body(index: int, address: Address) -> bytes:
    # Our addresses are assigned by a pool that knows of conflicts: no waiting for duplicate detection.
    flags = _IFA_F_NODAD if address.family == AF_INET6 else 0
    body = _ADDRESS.pack(address.family, address.prefix, flags, 0, index)
    body += attribute(_IFA_LOCAL, address.raw) + attribute(_IFA_ADDRESS, address.raw)
    if address.family == AF_INET and address.prefix < 31:
        host = (1 << 32 - address.prefix) - 1
        broadcast = int.from_bytes(address.raw, "big") | host
        body += attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return body


def route_body(index: int, route: RouteEntry) -> bytes:
    destination = route.destination
    scope = _RT_SCOPE_UNIVERSE if route.gateway or destination.family == AF_INET6 else _RT_SCOPE_LINK
    body = _ROUTE.pack(
        destination.family,
        destination.prefix,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        scope,
        _RTN_UNICAST,
        0,
    )
    if destination.prefix:
        body += attribute(_RTA_DST, destination.raw)
    if route.gateway:
        body += attribute(_RTA_GATEWAY, route.gateway)
    return body + attribute(_RTA_OIF, struct.pack("=I", index))


# ---------------------------------------------------------------- the kernel


class Netlink:
    """A conversation with the kernel; close it (or leave it as a context manager)."""

    def __init__(self) -> None:
        self._socket = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_ROUTE
        )
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def set_link(self, index: int, *, up: bool | None = None, name: str = "", mtu: int = 0) -> None:
        words = f"{index} up={up} {name} {mtu or ''}".strip()
        self._ask(RTM_NEWLINK, 0, link_body(index, up=up, name=name, mtu=mtu), f"link {words}")

    def add_address(self, index: int, address: Address) -> None:
        self._ask(RTM_NEWADDR, _CREATE | _REPLACE, address_body(index, address), f"add address {address}")

    def remove_address(self, index: int, address: Address) -> None:
        self._ask(RTM_DELADDR, 0, address_body(index, address), f"remove address {address}")

    def add_route(self, index: int, route: RouteEntry) -> None:
        self._ask(
            RTM_NEWROUTE, _CREATE | _REPLACE, route_body(index, route), f"add route {route.destination}"
        )

    def remove_route(self, index: int, route: RouteEntry) -> None:
        self._ask(RTM_DELROUTE, 0, route_body(index, route), f"remove route {route.destination}")

    def addresses(self, index: int) -> list[Address]:
        """What the interface has, but for IPv6 link-local addresses, which are the kernel's."""
        found = []
        for body in self._dump(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, _, scope, owner = _ADDRESS.unpack_from(body)
            if owner != index or (family == AF_INET6 and scope == _SCOPE_LINK_LOCAL):
                continue
            values = attributes(body[_ADDRESS.size :])
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw and family in (AF_INET, AF_INET6):
                found.append(Address(family, raw, prefix))
        return found

    def routes(self, index: int) -> list[RouteEntry]:
        """Routes through the interface that we made: the kernel's own are left alone."""
        found = []
        for body in self._dump(RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
            family, prefix, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
            if table != _RT_TABLE_MAIN or protocol != _RTPROT_STATIC or kind != _RTN_UNICAST:
                continue
            values = attributes(body[_ROUTE.size :])
            if values.get(_RTA_OIF) != struct.pack("=I", index):
                continue
            raw = values.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
            found.append(RouteEntry(Address(family, raw, prefix), values.get(_RTA_GATEWAY, b"")))
        return found

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> None:
        sequence = self._send(kind, _REQUEST | _ACK | flags, body)
        while True:
            for answer, number, content in messages(self._socket.recv(65536)):
                if number == sequence and answer == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise SyscallError(code, "netlink", what)
                    return

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        sequence = self._send(kind, _REQUEST | _DUMP, body)
        while True:
            for answer, number, content in messages(self._socket.recv(65536)):
                if number != sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    raise SyscallError(-struct.unpack_from("=i", content)[0], "netlink", "dump")
                yield content

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        self._socket.send(message(kind, flags, self._sequence, body))
        return self._sequence


def interface_index(mac: str) -> tuple[str, int] | None:
    """The interface with this hardware address: its name and number."""
    wanted = mac.lower()
    base = "/sys/class/net"
    for name in os.listdir(base):
        if name != "lo" and _read(f"{base}/{name}/address") == wanted:
            return name, int(_read(f"{base}/{name}/ifindex"))
    return None


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return ""
        raise
    try:
        return os.read(fd, 256).decode(errors="replace").strip()
    finally:
        os.close(fd)
