"""Forgetting UDP flows that the rules no longer stand for.

The kernel remembers for each flow how it was translated. A client that sends to
a port from before it was published would go on to the host for ever, and one of
a container that is gone would go to whoever gets its address next. TCP needs
none of this: its connections end with the container, new ones are new flows.

A dump costs the kernel a walk through its whole table (10 ms with 262,144
buckets), so it is done only when such a port comes or goes.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Collection

from pyroute2 import Conntrack
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

__all__ = ["forget_ports"]

_log = logging.getLogger(__name__)

_PROTOCOLS = {"udp": socket.IPPROTO_UDP, "sctp": 132}


def forget_ports(ports: Collection[tuple[str, int]]) -> None:
    """Flows to ports of the host (protocol, number; TCP is left out), however they were translated. Blocks.

    A failure is logged: the flows end by themselves when their clients pause for some minutes.
    """
    for protocol, number in _PROTOCOLS.items():
        wanted = {port for word, port in ports if word == protocol}
        for family in (socket.AF_INET, socket.AF_INET6) if wanted else ():
            try:
                _forget(family, number, wanted)
            except (NetlinkError, OSError) as error:
                _log.warning("forgetting flows to %s ports %s: %s", protocol, sorted(wanted), error)


def _forget(family: socket.AddressFamily, protocol: int, ports: Collection[int]) -> None:
    with Conntrack(nfgen_family=family) as conntrack:
        everything = NFCTAttrTuple(family=family, proto=protocol)
        for entry in list(conntrack.dump_entries(tuple_orig=everything)):
            if entry.tuple_orig.dport not in ports:
                continue
            try:
                conntrack.entry("del", tuple_orig=entry.tuple_orig)
            except NetlinkError as error:
                if error.code != errno.ENOENT:  # ended meanwhile
                    raise
