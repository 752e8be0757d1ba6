"""Where clients come in: a unix socket, TCP, TCP with TLS.

A connection is one task; the number of open connections is capped, further
ones are closed at once. Closing the server lets short answers finish, cuts
streams, and returns only when no task is left.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
import ssl
from pathlib import Path

from engine.http.connection import Application, Connection
from engine.http.errors import Disconnected
from engine.http.tls import TlsTransport
from engine.http.transport import PlainTransport, Transport

__all__ = ["HttpServer"]

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
GRACE_SECONDS = 5.0
BACKLOG = 512
KEEPALIVE_SECONDS = 60  # a TCP client that lost its network is noticed


class HttpServer:
    def __init__(self, application: Application) -> None:
        self._application = application
        self._servers: list[asyncio.Server] = []
        self._sockets: list[Path] = []
        self._connections: dict[asyncio.Task[None], Connection | None] = {}

    async def listen_unix(self, path: Path, *, group: str) -> None:
        """Serve ``path``, root:``group`` 0660; a stale socket file of a dead engine is replaced.

        The socket is made under another name and renamed, so that it is never
        reachable with wrong permissions.
        """
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(temporary))
        temporary.chmod(0o660)
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            logger.warning("no group %r on this host: %s is for root alone", group, path)
        else:
            if os.geteuid() == 0:
                os.chown(temporary, 0, gid)
        temporary.rename(path)
        self._servers.append(
            await asyncio.start_unix_server(self._accept_plain, sock=listener, backlog=BACKLOG)
        )
        self._sockets.append(path)

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None) -> int:
        """Serve ``host:port`` and return the port (it differs when 0 was asked for)."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
            if tls is None:
                await self._serve(PlainTransport(reader, writer))
            else:
                await self._serve(TlsTransport(reader, writer, tls))

        server = await asyncio.start_server(accept, host, port, backlog=BACKLOG)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)
        for task, connection in list(self._connections.items()):
            if connection is not None and connection.busy:
                connection.drain()
            else:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(set(self._connections), timeout=GRACE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _accept_plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(PlainTransport(reader, writer))

    async def _serve(self, transport: Transport) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            logger.warning("%s refused: %d connections are open", transport.peer, MAX_CONNECTIONS)
            transport.abort()
            return
        self._connections[task] = None
        try:
            if isinstance(transport, TlsTransport):
                await transport.handshake()
            connection = Connection(transport, self._application)
            self._connections[task] = connection
            await connection.serve()
        except Disconnected as error:
            logger.info("%s: %s", transport.peer, error)
            transport.abort()
        except asyncio.CancelledError:
            transport.abort()  # only close() cancels
        finally:
            del self._connections[task]
