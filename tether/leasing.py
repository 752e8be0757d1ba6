"""A DHCP lease for one interface: the client of tether/dhcp.py with a socket, a timer and netlink.

What is leased is installed at once and taken away when it is lost; ``on_change``
tells either.
"""

from __future__ import annotations

import _socket
import os
import select
import time
from collections.abc import Callable

from tether.dhcp import Client, Lease, ip_packet, udp_payload
from tether.loop import Loop, Timer
from tether.netlink import AF_INET, Address, Netlink, RouteEntry
from tether.network import announce
from tether.tether_pb2 import Interface

__all__ = ["Leasing"]

_ETH_P_IP = 0x0800  # linux/if_ether.h


class Leasing:
    """The DHCP client of one interface, with its socket and its timer."""

    def __init__(
        self,
        loop: Loop,
        interface: Interface,
        *,
        index: int,
        hostname: str,
        log: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._index = index
        self._log = log
        self._on_change = on_change
        self._timer: Timer | None = None
        self._applied: Lease | None = None
        self.name = interface.name
        self._mac = interface.mac
        self._client = Client(
            mac=bytes.fromhex(interface.mac.replace(":", "")),
            hostname=hostname,
            transaction=int.from_bytes(os.urandom(4), "big"),
        )
        self._socket = _socket.socket(
            _socket.AF_PACKET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK, 0
        )
        self._socket.bind((self.name, _ETH_P_IP))
        loop.add(self._socket.fileno(), select.EPOLLIN, lambda _: self._receive())
        self._client.start(time.monotonic())
        self._proceed()

    @property
    def lease(self) -> Lease | None:
        return self._applied

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove(self._socket.fileno())
        self._socket.close()

    def _receive(self) -> None:
        try:
            packet = self._socket.recv(2048)
        except OSError as error:  # the link went down
            self._log(f"dhcp {self.name}: {error}")
            return
        payload = udp_payload(packet)
        if payload is not None:
            self._client.received(payload, time.monotonic())
            self._proceed()

    def _tick(self) -> None:
        self._client.tick(time.monotonic())
        self._proceed()

    def _proceed(self) -> None:
        for packet in self._client.outgoing:
            try:
                self._socket.sendto(ip_packet(packet), (self.name, _ETH_P_IP, 0, 0, b"\xff" * 6))
            except OSError as error:  # repeated by the client's own timer
                self._log(f"dhcp {self.name}: {error}")
        self._client.outgoing.clear()
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._client.deadline
        if deadline is not None:
            self._timer = self._loop.after(max(deadline - time.monotonic(), 0), self._tick)
        if self._client.lease != self._applied:
            self._install(self._client.lease)

    def _install(self, lease: Lease | None) -> None:
        with Netlink() as netlink:
            wanted = None if lease is None else Address(AF_INET, lease.address, lease.prefix)
            for address in netlink.addresses(self._index):
                if address.family == AF_INET and address != wanted:
                    netlink.remove_address(self._index, address)
            if lease is not None and wanted is not None:
                netlink.set_link(self._index, mtu=lease.mtu)
                netlink.add_address(self._index, wanted)
                if lease.router:
                    route = RouteEntry(Address(AF_INET, bytes(4), 0), lease.router)
                    netlink.add_route(self._index, route)
                announce(self._index, self._mac, wanted)
        self._applied = lease
        self._on_change()
