"""What happens, pushed to whoever listens.

A subscriber that does not read is cut off, never waited for: its queue is
bounded, and once it has overflowed the subscription ends with
:class:`SlowSubscriber`. Events reach every subscriber in one order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from portlayer.portlayer_pb2 import (
    ContainerEvent,
    NetworkChange,
    PortlayerEvent,
    VolumeChange,
)

__all__ = ["EventHub", "SlowSubscriber", "Subscription"]

QUEUE_LIMIT = 4096


class SlowSubscriber(Exception):
    """The subscriber did not read its events; it has lost some and must start over."""


class Subscription:
    """One listener's queue. Iterate it; close it when done."""

    def __init__(self, hub: EventHub, limit: int) -> None:
        self._hub = hub
        self._limit = limit
        self._queue: deque[PortlayerEvent] = deque()
        self._wake = asyncio.Event()
        self._overflowed = False
        self._closed = False

    def deliver(self, event: PortlayerEvent) -> None:
        if len(self._queue) >= self._limit:
            self._overflowed = True
            self._queue.clear()
            self._hub.forget(self)
        else:
            self._queue.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._hub.forget(self)
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> PortlayerEvent:
        while not self._queue:
            if self._overflowed:
                raise SlowSubscriber("events were not read in time")
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class EventHub:
    """Numbers events, stamps them and hands them to every subscription."""

    def __init__(self, now: Callable[[], int], *, limit: int = QUEUE_LIMIT) -> None:
        self._now = now  # ns since the epoch
        self._limit = limit
        self._sequence = 0
        self._subscriptions: list[Subscription] = []

    def subscribe(self) -> Subscription:
        subscription = Subscription(self, self._limit)
        self._subscriptions.append(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close()

    def container(self, event: ContainerEvent) -> None:
        self._publish(PortlayerEvent(container=event))

    def network(self, event: NetworkChange) -> None:
        self._publish(PortlayerEvent(network=event))

    def volume(self, event: VolumeChange) -> None:
        self._publish(PortlayerEvent(volume=event))

    def _publish(self, event: PortlayerEvent) -> None:
        self._sequence += 1
        event.sequence = self._sequence
        event.time = self._now()
        for subscription in list(self._subscriptions):
            subscription.deliver(event)
