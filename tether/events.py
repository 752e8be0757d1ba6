"""Pushed events: numbered, kept for a while, replayed to a host that comes back.

A subscriber says the last sequence number it has seen and gets everything
after it that the ring still holds, then what happens, as it happens. A gap in
the numbers tells it that the ring has turned over meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from tether.call import Call, RpcError
from tether.server import Server
from tether.tether_pb2 import Event, EventsRequest
from tether.wire import Code

__all__ = ["EventLog"]

_MAX_SUBSCRIBERS = 16


class EventLog:
    def __init__(self, *, keep: int = 512) -> None:
        self._events: deque[Event] = deque(maxlen=keep)
        self._last = 0
        self._subscribers: dict[Call, int] = {}  # and the last number sent

    def register(self, server: Server) -> None:
        """Serve the Events call."""
        server.streaming("Events", EventsRequest, self._subscribe)

    def publish(self, **event: Any) -> None:
        """Number, keep and push an event: ``publish(main=state)``, or exec, oom, health, network."""
        self._last += 1
        self._events.append(Event(sequence=self._last, time=time.time_ns(), **event))
        for call in list(self._subscribers):
            self._push(call)

    def after(self, sequence: int) -> list[Event]:
        """What the ring holds of the events after ``sequence``."""
        first = self._last - len(self._events)
        skip = max(0, sequence - first)
        return [self._events[n] for n in range(skip, len(self._events))]

    def _subscribe(self, request: EventsRequest, call: Call) -> None:
        if request.after > self._last:
            raise RpcError(Code.OUT_OF_RANGE, f"event {request.after} has not happened; {self._last} has")
        if len(self._subscribers) >= _MAX_SUBSCRIBERS:
            raise RpcError(Code.RESOURCE_EXHAUSTED, "too many subscribers")
        self._subscribers[call] = request.after
        call.on_cancel(lambda: self._unsubscribe(call))
        call.on_writable(lambda: self._push(call))
        self._push(call)

    def _unsubscribe(self, call: Call) -> None:
        del self._subscribers[call]

    def _push(self, call: Call) -> None:
        for event in self.after(self._subscribers[call]):
            if call.room <= 0:
                return
            self._subscribers[call] = event.sequence
            call.send_message(event)
