"""Sockets of the embedded DNS: UDP and TCP on every gateway address, questions to upstream servers.

Everything a guest can make us keep is capped: questions in flight per address
and in all, connections, bytes and seconds per connection. What is over the cap
is dropped (UDP) or closed (TCP); the guest's resolver asks again.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import random
import socket
import struct
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, cast

from portlayer.network.dns import Forward, Resolver

__all__ = ["DnsServers"]

_log = logging.getLogger(__name__)

_PORT = 53
_OTHER_PORTS = range(10000, 30000)  # below the ephemeral range
_ATTEMPTS = 8
_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
_SO_RCVBUFFORCE = 33
_QUEUE = 2 << 20
_IN_FLIGHT = 512
_IN_FLIGHT_EACH = 64
_CONNECTIONS = 128
_CONNECTIONS_EACH = 8
_IDLE_SECONDS = 10.0
_QUESTION_CAP = 1024
_UPSTREAM_SECONDS = 2.0
_UPSTREAM_SERVERS = 3
_TRY_NEXT = (2, 5)  # SERVFAIL, REFUSED
_TRUNCATED = 0x02


class DnsServers:
    """The servers of all networks of one VCH."""

    def __init__(self, resolver: Resolver, *, port: int = _PORT) -> None:
        self._resolver = resolver
        self._port = port
        self._servers: dict[str, list[asyncio.DatagramTransport | asyncio.Server]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()

    async def start(self, network: str, addresses: tuple[str, ...]) -> int:
        """Serve a network on its gateway addresses; returns the port.

        It is 53 unless a program of the host listens on port 53 of every address (a dnsmasq, say): then it
        is one that the packet rules must lead port 53 to.

        Raises:
            OSError: it is not served at all.
        """
        await self.stop(network)
        for port in (self._port, *(random.sample(_OTHER_PORTS, _ATTEMPTS))):
            try:
                await self._open(network, addresses, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
        raise OSError(errno.EADDRINUSE, f"no port for a DNS server on {', '.join(addresses)}")

    async def _open(self, network: str, addresses: tuple[str, ...], port: int) -> None:
        opened: list[asyncio.DatagramTransport | asyncio.Server] = []
        self._servers[network] = opened
        loop = asyncio.get_running_loop()
        try:
            for address in addresses:
                udp = _bound(address, port, socket.SOCK_DGRAM)
                transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self, network), sock=udp)
                opened.append(transport)
                tcp = _bound(address, port, socket.SOCK_STREAM)
                opened.append(
                    await asyncio.start_server(
                        lambda reader, writer: self._connected(network, reader, writer), sock=tcp, limit=4096
                    )
                )
        except OSError:
            await self.stop(network)
            raise

    async def stop(self, network: str) -> None:
        """Idempotent."""
        for server in self._servers.pop(network, []):
            server.close()

    async def close(self) -> None:
        for network in list(self._servers):
            await self.stop(network)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- one question
    def datagram(self, network: str, packet: bytes, peer: Any, transport: asyncio.DatagramTransport) -> None:
        source = str(peer[0])
        outcome = self._resolver.ask(packet, network=network, source=source, tcp=False)
        if isinstance(outcome, Forward):
            if self._admit(source):
                self._spawn(self._answer_later(outcome, source, peer, transport))
        elif outcome is not None:
            transport.sendto(outcome, peer)

    async def _answer_later(
        self, forward: Forward, source: str, peer: Any, transport: asyncio.DatagramTransport
    ) -> None:
        answer = await self._forward(forward, source)
        if not transport.is_closing():
            transport.sendto(answer, peer)

    def _admit(self, source: str) -> bool:
        """May one more question of this guest go to upstream servers? Counted at once: a burst is read before
        its first task runs."""
        if self._in_flight[source] >= _IN_FLIGHT_EACH or self._in_flight.total() >= _IN_FLIGHT:
            return False
        self._in_flight[source] += 1
        return True

    async def _forward(self, forward: Forward, source: str) -> bytes:
        """Of an admitted question."""
        try:
            return self._resolver.finish(forward, await _ask_upstream(forward))
        finally:
            _decrease(self._in_flight, source)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a DNS question failed", exc_info=task.exception())

    # -- TCP
    def _connected(self, network: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = str(writer.get_extra_info("peername")[0])
        if self._connections[source] >= _CONNECTIONS_EACH or self._connections.total() >= _CONNECTIONS:
            writer.close()
            return
        self._connections[source] += 1
        self._spawn(self._converse(network, source, reader, writer))

    async def _converse(
        self, network: str, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    packet = await _read_message(reader, cap=_QUESTION_CAP)
                    outcome = self._resolver.ask(packet, network=network, source=source, tcp=True)
                    if isinstance(outcome, Forward):
                        outcome = await self._forward(outcome, source) if self._admit(source) else None
                    if outcome is None:
                        return
                    writer.write(struct.pack("!H", len(outcome)) + outcome)
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ValueError, OSError):
            return  # the guest went away, is slow, or does not speak DNS: its own affair
        finally:
            writer.close()
            _decrease(self._connections, source)


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, servers: DnsServers, network: str) -> None:
        self._servers = servers
        self._network = network
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        self._servers.datagram(self._network, data, addr, self._transport)


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Bound even while the address is not usable yet (a bridge that has just come up)."""
    family = socket.AF_INET if ipaddress.ip_address(address).version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        level, option = _FREEBIND[family]
        sock.setsockopt(level, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:  # room for the burst that the packet rules let one guest send, and for the others
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


async def _read_message(reader: asyncio.StreamReader, *, cap: int) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    if length > cap:
        raise ValueError(f"a message of {length} bytes")
    return await reader.readexactly(length)


async def _ask_upstream(forward: Forward) -> bytes | None:
    """The first server's usable answer, else the last one's refusal, else None."""
    refusal = None
    for server in forward.servers[:_UPSTREAM_SERVERS]:
        try:
            async with asyncio.timeout(_UPSTREAM_SECONDS):
                answer = await _ask_udp(server, forward.packet)
                if answer[2] & _TRUNCATED:
                    answer = await _ask_tcp(server, forward.packet)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            _log.debug("DNS server %s: %r", server, error)
            continue
        if answer[3] & 15 not in _TRY_NEXT:
            return answer
        refusal = answer
    return refusal


class _Question(asyncio.DatagramProtocol):
    """One question to one server. The socket is connected, so only that server's datagrams arrive; those
    that do not carry our random number are not for us."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._packet)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(data) >= 12 and data[:2] == self._packet[:2] and data[2] & 0x80 and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed"))
            self.answer.exception()  # retrieved: the asker may be gone


async def _ask_udp(server: str, packet: bytes) -> bytes:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Question(packet), remote_addr=(server, _PORT)
    )
    try:
        return await protocol.answer
    finally:
        transport.close()


async def _ask_tcp(server: str, packet: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, _PORT)
    try:
        writer.write(struct.pack("!H", len(packet)) + packet)
        await writer.drain()
        answer = await _read_message(reader, cap=65535)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if len(answer) < 12:
        raise ValueError("an answer shorter than a header")
    return answer
