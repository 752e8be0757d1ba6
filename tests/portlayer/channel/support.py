"""A channel between the real host client and a guest, which a test can cut at any byte."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable


class Link:
    """What QEMU's chardev does: the guest's end stays, hosts come and go, one at a time.

    ``cut_up`` and ``cut_down`` are bytes that still pass (guest→host, host→guest)
    before the host's connection is cut; what is on its way then is lost.
    """

    def __init__(self, guest_fd: int) -> None:
        self._guest = socket.socket(fileno=os.dup(guest_fd))
        self._guest.setblocking(False)
        self._hosts: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.connections = 0
        self.on_connect: Callable[[], None] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self.cut()
        self.connections += 1
        if self.on_connect is not None:
            self.on_connect()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._hosts = [ours]
        self._tasks = [
            asyncio.create_task(self._pump(ours, True)),
            asyncio.create_task(self._pump(ours, False)),
        ]
        return await asyncio.open_connection(sock=theirs)

    async def _pump(self, host: socket.socket, up: bool) -> None:
        loop = asyncio.get_running_loop()
        source, target = (self._guest, host) if up else (host, self._guest)
        while True:
            data = await loop.sock_recv(source, 65536)
            left = self.cut_up if up else self.cut_down
            if left is not None:
                data = data[:left]
                left -= len(data)
                if up:
                    self.cut_up = left
                else:
                    self.cut_down = left
            if data:
                await loop.sock_sendall(target, data)
            if left == 0:
                self.cut_up = self.cut_down = None
                self._end_host()
                return
            if not data:
                return

    def _end_host(self) -> None:
        for host in self._hosts:
            host.shutdown(socket.SHUT_RDWR)

    async def cut(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in self._hosts:
            host.close()
        self._hosts = []

    async def close(self) -> None:
        await self.cut()
        self._guest.close()
