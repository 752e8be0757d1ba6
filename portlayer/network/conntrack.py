"""Forgetting connections that the rules no longer stand for.

The kernel remembers for each flow how it was translated. A UDP flow to a port
that is published only now would go on to the host, and one to a container that
is gone would go to whoever gets its address next. Filters run in the kernel, so
a host with many flows pays for the matching ones only.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable

from pyroute2 import Conntrack
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

__all__ = ["forget_container", "forget_ports"]

_log = logging.getLogger(__name__)

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def forget_container(addresses: Iterable[str], ports: Iterable[tuple[str, int]]) -> None:
    """Flows from and to ``addresses``, those through published ``ports`` (protocol, host port) included.
    Blocks; a failure is logged, for the flows end by themselves within minutes."""
    for address in addresses:
        family = _family(address)
        _delete(NFCTAttrTuple(family=family, saddr=address), family)
        _delete(NFCTAttrTuple(family=family, daddr=address), family)
    forget_ports(ports)


def forget_ports(ports: Iterable[tuple[str, int]]) -> None:
    """Flows to ports of the host, however they were translated."""
    for protocol, port in ports:
        for family in (socket.AF_INET, socket.AF_INET6):
            _delete(NFCTAttrTuple(family=family, proto=_PROTOCOLS[protocol], dport=port), family)


def _delete(wanted: NFCTAttrTuple, family: socket.AddressFamily) -> None:
    try:
        with Conntrack(nfgen_family=family) as conntrack:
            for entry in list(conntrack.dump_entries(tuple_orig=wanted)):
                try:
                    conntrack.entry("del", tuple_orig=entry.tuple_orig)
                except NetlinkError as error:
                    if error.code != errno.ENOENT:  # ended meanwhile
                        raise
    except (NetlinkError, OSError) as error:
        _log.warning("forgetting flows %r: %s", wanted, error)
