"""Events to whoever listens, and a ring of past ones for ``since``.

Invariant: publishing never waits. A subscriber that does not keep up is cut
off; it finds the end of its stream, not a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Event", "EventHub", "Subscription"]

RING = 256
QUEUE = 4096


@dataclass(frozen=True, kw_only=True)
class Event:
    kind: str  # "container", "image", "volume", "network", "daemon"
    action: str
    actor: str  # ID or name
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0
    scope: str = "local"


class Subscription:
    """Events from the moment of subscribing. Iteration ends when the subscriber was too slow."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._cut = False

    def __enter__(self) -> Subscription:
        self._hub.subscriptions.add(self)
        return self

    def __exit__(self, *details: object) -> None:
        self._hub.subscriptions.discard(self)

    def push(self, event: Event) -> None:
        if len(self._queue) >= QUEUE:
            self._cut = True
            self._hub.subscriptions.discard(self)
        else:
            self._queue.append(event)
        self._wake.set()

    async def next(self) -> Event | None:
        """The next event; ``None`` when this subscriber was cut off."""
        while not self._queue:
            if self._cut:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class EventHub:
    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self._ring: deque[Event] = deque(maxlen=RING)

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str] | None = None,
        *,
        time_ns: int = 0,
    ) -> None:
        event = Event(
            kind=kind,
            action=action,
            actor=actor,
            attributes=dict(attributes or {}),
            time_ns=time_ns or time.time_ns(),
        )
        self._ring.append(event)
        for subscription in tuple(self.subscriptions):
            subscription.push(event)

    def past(self) -> list[Event]:
        """The ring, oldest first."""
        return list(self._ring)

    def subscribe(self) -> Subscription:
        return Subscription(self)
