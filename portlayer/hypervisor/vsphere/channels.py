"""The hosts dial us: the network-backed serial port of each VM that runs.

ESXi (not the VM) connects to ``tcp://<us>:<port>``, one port of ours for each VM,
so that the port says whose bytes these are and no guest's word is taken for it.
The connection outlives its users: a user gets one end of a socket pair, a newer
user takes the older one's place, and what is said to nobody is dropped, both ways, as
a serial line does: a guest that has not opened its port yet would otherwise find
minutes of resets in front of the first thing that matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any

from portlayer.hypervisor.base import HypervisorError

__all__ = ["ChannelPort"]

_PIECE = 32 << 10  # little in flight: what is under way cannot be overtaken by a signal
_CONNECT_TIMEOUT = 30.0
_log = logging.getLogger(__name__)


class ChannelPort:
    """One VM's listening port, and what hangs on it."""

    def __init__(self, vm: str) -> None:
        self._vm = vm
        self._server: asyncio.Server | None = None
        self._line: asyncio.StreamWriter | None = None  # to the host
        self._connected = asyncio.Event()
        self._listening = False  # the guest has opened its end
        self._user: asyncio.StreamWriter | None = None  # our end of the newest user's pair
        self._theirs: asyncio.StreamWriter | None = None  # and his
        self._tasks: set[asyncio.Task[None]] = set()
        self.number = 0

    async def listen(self, host: str, number: int = 0) -> None:
        """
        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._accept, host, number, limit=_PIECE, backlog=4)
        self.number = self._server.sockets[0].getsockname()[1]

    def guest_listens(self) -> None:
        """From now on it gets what is said to it."""
        self._listening = True

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A fresh stream to the guest; the older one ends.

        Raises:
            HypervisorError: the host has not connected in time.
        """
        self._drop_user()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await self._connected.wait()
        except TimeoutError as error:
            raise HypervisorError(
                f"VM {self._vm[:12]}: no host has connected its serial port to port {self.number}"
                f" in {_CONNECT_TIMEOUT:g} s (firewall rule set, licence feature 'serialuri')"
            ) from error
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_PIECE)
        writer.transport.set_write_buffer_limits(high=_PIECE)
        self._drop_user()  # two callers at once: the later one has it
        self._user = writer
        self._spawn(self._from_user(reader, writer))
        his_reader, self._theirs = await asyncio.open_connection(sock=theirs)
        return his_reader, self._theirs

    async def close(self) -> None:
        self._drop_user()
        if self._server is not None:
            self._server.close()
        if self._line is not None:
            self._line.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- inside

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drop_user(self) -> None:
        if self._user is not None:
            self._user.transport.abort()
            self._user = None
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The newest connection is the line: after a vMotion it is another host's."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._line is not None:
            self._line.transport.abort()
        self._line = writer
        writer.transport.set_write_buffer_limits(high=_PIECE)
        self._connected.set()
        _log.debug("VM %s: its host is on the line", self._vm[:12])
        try:
            await self._from_guest(reader)
        finally:
            writer.transport.abort()
            if self._line is writer:
                self._line = None
                self._connected.clear()

    async def _from_guest(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                user = self._user
                if user is None:
                    continue
                user.write(data)
                try:
                    await user.drain()
                except ConnectionError:
                    if self._user is user:
                        self._user = None

    async def _from_user(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(_PIECE):
                    line = self._line
                    if not self._listening or line is None:
                        continue
                    line.write(data)
                    await line.drain()
        finally:
            writer.transport.abort()
            if self._user is writer:
                self._user = None
