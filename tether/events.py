"""Pushed events: numbered, kept for a while, replayed to a host that comes back.

A subscriber says the last sequence number it has seen and gets everything
after it that the ring still holds, then what happens, as it happens. A gap in
the numbers tells it that the ring has turned over meanwhile.
"""

from __future__ import annotations

from typing import Any

from tether.loop import Loop
from tether.server import Server

__all__ = ["EventLog"]


class EventLog:
    def __init__(self, loop: Loop, *, keep: int = 512) -> None:
        raise NotImplementedError

    def register(self, server: Server) -> None:
        """Serve the Events call."""
        raise NotImplementedError

    def publish(self, **event: Any) -> None:
        """Number, keep and push an event: ``publish(main=state)``, or exec, oom, health, network."""
        raise NotImplementedError
