"""Noticing that somebody else changed the packet rules of this host.

An administrator reloads nftables.service (which begins with "flush ruleset"),
Docker starts after us and sets its FORWARD policy: containers would run on with
no isolation, or no network. The kernel tells every change of nftables, those of
iptables on top of it included; nothing is polled. :class:`Observer` (sans-IO)
reads these messages and says what is worth looking at.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

__all__ = ["Finding", "Observer", "RulesWatcher"]

_log = logging.getLogger(__name__)

_NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES, the high byte of a message's type
_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE, _NEWGEN = 0, 2, 3, 5, 6, 8, 15
_CHANGES = (_NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE)
_IPV4, _IPV6 = 2, 10
_TABLE_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE alike
_HEADER = struct.Struct("=IHHIIBBH")  # nlmsghdr and nfgenmsg
_BUFFER = 8 << 20  # a large transaction of our own comes as thousands of messages
_PAUSE = 0.2  # a firewall is reloaded in many transactions: look once, at the end


class Finding(enum.Enum):
    DAMAGED = "damaged"  # somebody changed our own tables
    OTHERS = "others"  # iptables' filter tables changed


class Observer:
    """Follows transactions. Our own begin with new tables of ours; whatever else touches them is damage."""

    def __init__(self, table: str) -> None:
        self._table = table.encode()
        self._renewed = False
        self._touched = False
        self._others = False

    def feed(self, data: bytes) -> set[Finding]:
        """Messages as read from the socket; what the transactions that ended in them mean."""
        findings: set[Finding] = set()
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _, family, _, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size or at + length > len(data):
                break
            if kind >> 8 == _SUBSYSTEM:
                findings |= self._message(kind & 255, family, data[at + _HEADER.size : at + length])
            at += (length + 3) & ~3
        return findings

    def _message(self, kind: int, family: int, body: bytes) -> set[Finding]:
        if kind == _NEWGEN:
            return self._end()
        if kind not in (_NEWTABLE, _DELTABLE, *_CHANGES):
            return set()
        name = _attribute(body, _TABLE_NAME)
        if name == self._table:
            self._renewed |= kind == _NEWTABLE
            self._touched = True
        elif name == b"filter" and family in (_IPV4, _IPV6):
            self._others = True
        return set()

    def _end(self) -> set[Finding]:
        findings = set()
        if self._touched and not self._renewed:
            findings.add(Finding.DAMAGED)
        if self._others:
            findings.add(Finding.OTHERS)
        self._renewed = self._touched = self._others = False
        return findings


def _attribute(body: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            return None
        if kind & 0x3FFF == wanted:
            return body[at + 4 : at + length].rstrip(b"\0")
        at += (length + 3) & ~3
    return None


class RulesWatcher:
    """Calls ``repair`` with what was found, once things have calmed down; one call at a time."""

    def __init__(self, table: str, repair: Callable[[set[Finding]], Awaitable[None]]) -> None:
        self._observer = Observer(table)
        self._repair = repair
        self._socket: socket.socket | None = None
        self._found: set[Finding] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 12
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
            sock.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        loop = asyncio.get_running_loop()
        loop.add_reader(sock, self._readable)
        self._task = loop.create_task(self.run())

    async def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(64):  # then others get their turn
            try:
                found = self._observer.feed(self._socket.recv(1 << 20))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = set(Finding)  # messages were lost: anything may have happened
            self.report(found)

    def report(self, found: set[Finding]) -> None:
        if found:
            self._found |= found
            self._wake.set()

    async def run(self) -> None:
        """Repair for ever; start() makes it a task."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PAUSE)
            found, self._found = self._found, set()
            self._wake.clear()
            try:
                await self._repair(found)
            except Exception:
                # The watch must not end with one failed repair; what is broken is logged with its cause.
                _log.exception("repairing the packet rules failed")
