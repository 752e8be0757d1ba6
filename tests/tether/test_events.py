"""Events: numbers, replay, the ring's turn, slow subscribers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tether.support import Guest, SteppedHost
from tether.events import EventLog
from tether.session import DataReceived, ErrorReceived
from tether.tether_pb2 import Event, EventsRequest, HealthEvent, MainState, OomEvent
from tether.wire import Code


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    guest = Guest(tmp_path / "journal")
    yield guest
    guest.close()


@pytest.fixture
def host(guest: Guest) -> SteppedHost:
    host = SteppedHost(guest)
    host.reset()
    return host


def subscribe(host: SteppedHost, after: int) -> int:
    stream = host.session.open("Events", EventsRequest(after=after).SerializeToString())
    host.flush()
    return stream


def seen(host: SteppedHost, stream: int) -> list[Event]:
    return [
        Event.FromString(e.body) for e in host.events if isinstance(e, DataReceived) and e.stream == stream
    ]


def test_events_are_numbered_and_replayed_from_where_the_subscriber_was(
    guest: Guest, host: SteppedHost
) -> None:
    for pid in (1, 2, 3):
        guest.events.publish(main=MainState(pid=pid))
    stream = subscribe(host, 1)
    host.wait(lambda: len(seen(host, stream)) == 2)
    guest.events.publish(oom=OomEvent(kills=7))
    host.wait(lambda: len(seen(host, stream)) == 3)
    events = seen(host, stream)
    assert [event.sequence for event in events] == [2, 3, 4]
    assert [event.WhichOneof("event") for event in events] == ["main", "main", "oom"]
    assert events[0].time <= events[1].time <= events[2].time


def test_the_ring_forgets_the_oldest() -> None:
    log = EventLog(keep=3)
    for pid in range(5):
        log.publish(main=MainState(pid=pid))
    assert [event.sequence for event in log.after(0)] == [3, 4, 5]
    assert [event.sequence for event in log.after(4)] == [5]
    assert log.after(5) == []


def test_a_subscriber_who_does_not_read_costs_the_ring_and_no_more(guest: Guest, host: SteppedHost) -> None:
    stream = subscribe(host, 0)
    host.wait(lambda: bool(guest.server._calls))
    host.hold()
    for n in range(3000):
        guest.events.publish(health=HealthEvent(output="x" * 4000, failing_streak=n))
    assert guest.server._session.queued(stream) < 200_000
    host.unhold()

    def eat() -> bool:
        events = [e for e in host.events if isinstance(e, DataReceived)]
        host.session.consume(stream, sum(len(event.body) for event in events))
        host.flush()
        return bool(events) and Event.FromString(events[-1].body).sequence == 3000

    host.wait(eat)
    numbers = [event.sequence for event in seen(host, stream)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 3000  # the gap shows


def test_a_cancelled_subscriber_is_forgotten(guest: Guest, host: SteppedHost) -> None:
    stream = subscribe(host, 0)
    host.wait(lambda: bool(guest.events._subscribers))
    host.session.cancel(stream)
    host.flush()
    host.wait(lambda: not guest.events._subscribers)


def test_the_future_and_a_crowd_are_refused(guest: Guest, host: SteppedHost) -> None:
    subscribe(host, 1)
    for _ in range(17):
        subscribe(host, 0)
    host.wait(lambda: len(host.events) == 2)
    assert [event.code for event in host.events if isinstance(event, ErrorReceived)] == [
        Code.OUT_OF_RANGE,
        Code.RESOURCE_EXHAUSTED,
    ]
