"""Holding a host port: a bound socket that nobody can connect to.

Published ports are forwarded by nftables, so no socket of ours ever carries
their traffic. It only makes the kernel refuse the port to every other program
and every other VCH of the host, as docker-proxy's listener does. A TCP socket
is bound and never listens: whoever reaches it past the forwarding rules (IPv6
loopback of a container without IPv6) is refused at once.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

from portlayer.network.ports import HostPort

__all__ = ["ephemeral_range", "hold_port"]

_SCTP = 132
_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, _SCTP),
}


class _NotHeld:
    """The kernel has no such protocol, so no host program can have the port either."""

    def close(self) -> None:
        pass


def hold_port(port: HostPort) -> socket.socket | _NotHeld:
    """Take ``port`` or raise OSError (EADDRINUSE when some program has it)."""
    if port.address:
        version = ipaddress.ip_address(port.address).version
        return _bind(port, socket.AF_INET if version == 4 else socket.AF_INET6, port.address, dual=False)
    try:
        return _bind(port, socket.AF_INET6, "::", dual=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _bind(port, socket.AF_INET, "0.0.0.0", dual=False)  # noqa: S104 - published everywhere; a host without IPv6


def _bind(port: HostPort, family: int, address: str, *, dual: bool) -> socket.socket | _NotHeld:
    kind, number = _KINDS[port.protocol]
    try:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        if port.protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return _NotHeld()
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        if port.protocol != "udp":
            # Reuse while binding, so that TIME_WAIT remains of a stopped host service do not count; not
            # afterwards, so that the next program's reuse does not get past us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port.port))
        if port.protocol != "udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock


def ephemeral_range(path: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> range:
    """Where "any free port" is looked for: the host's own ephemeral range, as Docker does."""
    first, last = path.read_text().split()
    return range(int(first), int(last) + 1)
