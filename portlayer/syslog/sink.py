"""A way to a syslog server: UDP, TCP, TLS, a unix socket of either kind, or the host's own.

A sink is connected when it is made and is done after its first error: whoever
sends makes another. TCP tells only late that a peer has gone, so up to a socket
buffer of messages may be lost with it, as with every plain syslog.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Sink", "connect"]

TIMEOUT = 10.0
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")


class Sink(Protocol):
    async def send(self, message: bytes) -> None:
        """Raises OSError: this sink is done."""

    def close(self) -> None: ...


class _Datagrams:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send(self, message: bytes) -> None:
        # A refusal answers an earlier datagram: whoever wants to know sends by TCP.
        with contextlib.suppress(ConnectionRefusedError):
            await asyncio.get_running_loop().sock_sendall(self._socket, message)

    def close(self) -> None:
        self._socket.close()


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader  # a server says nothing; its end is how we know that it has gone
        self._writer = writer

    async def send(self, message: bytes) -> None:
        if self._reader.at_eof():
            raise ConnectionResetError("the syslog server closed the connection")
        self._writer.write(message)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


async def connect(scheme: str, address: str, tls: Mapping[str, str]) -> Sink:
    """
    Args:
        tls: Docker's ``syslog-tls-*`` options, for scheme ``tcp+tls``.

    Raises:
        OSError: nobody there, or not in time; the message names the address.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _connect(scheme, address, tls)
    except TimeoutError as error:
        raise OSError(f"dial {scheme} {address}: no answer in {TIMEOUT:g} s") from error
    except OSError as error:
        raise OSError(f"dial {scheme or 'syslog'} {address or 'of this host'}: {error}") from error


async def _connect(scheme: str, address: str, tls: Mapping[str, str]) -> Sink:
    if not scheme:
        return await _local()
    if scheme == "unix":
        return _Stream(*await asyncio.open_unix_connection(address))
    if scheme == "unixgram":
        return await _datagrams(socket.AF_UNIX, address)
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if scheme == "udp":
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        return await _datagrams(found[0][0], found[0][4])
    context = await asyncio.to_thread(_context, tls) if scheme == "tcp+tls" else None
    return _Stream(*await asyncio.open_connection(host, int(port), ssl=context))


async def _local() -> Sink:
    """As the host's own programs find it: a datagram socket, else a stream."""
    for path in _LOCAL:
        with contextlib.suppress(FileNotFoundError):
            try:
                return await _datagrams(socket.AF_UNIX, path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
                return _Stream(*await asyncio.open_unix_connection(path))
    raise FileNotFoundError(f"none of {', '.join(_LOCAL)} is there")


async def _datagrams(family: int, address: Any) -> _Datagrams:
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return _Datagrams(made)


def _context(tls: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.get("syslog-tls-ca-cert") or None)
    if certificate := tls.get("syslog-tls-cert"):
        context.load_cert_chain(certificate, tls.get("syslog-tls-key") or None)
    if tls.get("syslog-tls-skip-verify") in _TRUE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
