"""A hijacked connection: raw bytes both ways, each half closing on its own."""

from __future__ import annotations

from engine.http.transport import READ_SIZE, Transport

__all__ = ["Duplex"]


class Duplex:
    """``read`` gives ``b""`` at the client's end of input; ``write`` works on after that.

    Both raise :class:`~engine.http.errors.Disconnected` once the client has
    gone altogether.
    """

    def __init__(self, transport: Transport, early: bytes) -> None:
        self._transport = transport
        self._early = early  # what the client sent right behind its request

    async def read(self, limit: int = READ_SIZE) -> bytes:
        if self._early:
            data, self._early = self._early[:limit], self._early[limit:]
            return data
        return await self._transport.read(limit)

    async def write(self, data: bytes) -> None:
        await self._transport.write(data)
