"""``GET /events``: past ones from the ring, then live ones, until ``until``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from engine.events.hub import Event, EventHub, Subscription
from engine.events.shape import ALLOWED, encode, wanted
from engine.filters import Filters
from engine.http import BadRequest, Request, Response, Router, streamed
from engine.timestamps import parse_ns

__all__ = ["register"]


def register(router: Router, hub: EventHub) -> None:
    async def events(request: Request) -> Response:
        now = time.time_ns()
        since_text, until_text = request.query.text("since"), request.query.text("until")
        since = parse_ns(since_text, now, what="since")
        until = parse_ns(until_text, now, what="until")
        if since and until and until < since:
            raise BadRequest("`since` time cannot be after `until` time")
        filters = Filters.parse(request.query.text("filters"), ALLOWED)
        subscription = hub.subscribe()  # before the answer's head: nothing after it is missed
        subscription.__enter__()
        past = hub.past() if since or until else []
        chosen = [
            event
            for event in past
            if event.time_ns >= since and (not until or event.time_ns <= until) and wanted(event, filters)
        ]
        return streamed(_stream(subscription, chosen, filters, until, request.version))

    router.add("GET", "/events", events)


async def _stream(
    subscription: Subscription, past: list[Event], filters: Filters, until: int, version: tuple[int, int]
) -> AsyncIterator[bytes]:
    try:
        for event in past:
            yield _line(event, version)
        deadline = None
        if until:
            deadline = asyncio.get_running_loop().time() + (until - time.time_ns()) / 1e9
        try:
            async with asyncio.timeout_at(deadline):
                while (found := await subscription.next()) is not None:
                    if wanted(found, filters):
                        yield _line(found, version)
        except TimeoutError:
            return
    finally:
        subscription.__exit__()


def _line(event: Event, version: tuple[int, int]) -> bytes:
    return json.dumps(encode(event, version), separators=(",", ":")).encode() + b"\n"
