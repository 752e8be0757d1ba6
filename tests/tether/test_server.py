"""The guest's server, with a host stepped on the same loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tether.support import Guest, SteppedHost
from tether.call import Call, RpcError
from tether.session import (
    QUEUE,
    WINDOW,
    DataReceived,
    ErrorReceived,
    LocalProtocolError,
    ResponseReceived,
    SessionStarted,
)
from tether.tether_pb2 import Empty, HealthEvent, HelloReply, MainState, TimeSetReply, TimeSetRequest
from tether.wire import MAX_BODY, Code, Type, encode


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


def ask(host: SteppedHost, method: str, body: bytes = b"") -> int:
    stream = host.session.open(method, body)
    host.flush()
    return stream


def data_of(host: SteppedHost, stream: int) -> bytes:
    return b"".join(e.body for e in host.events if isinstance(e, DataReceived) and e.stream == stream)


def test_unary_and_unknown_and_malformed(guest: Guest, host: SteppedHost) -> None:
    guest.server.unary("TimeSet", TimeSetRequest, lambda request: TimeSetReply(drift=request.time))
    good = ask(host, "TimeSet", TimeSetRequest(time=5).SerializeToString())
    unknown = ask(host, "Nope")
    bad = ask(host, "TimeSet", b"\xff\xff")
    host.wait(lambda: len(host.events) == 3)
    assert host.events[0] == ResponseReceived(good, TimeSetReply(drift=5).SerializeToString(), True)
    assert host.events[1] == ErrorReceived(unknown, Code.UNIMPLEMENTED, "this tether has no Nope")
    assert isinstance(host.events[2], ErrorReceived)
    assert host.events[2][:2] == (bad, Code.INVALID_ARGUMENT)


def test_a_handlers_own_error_and_an_accident(guest: Guest, host: SteppedHost) -> None:
    def refuse(_: Empty) -> Empty:
        raise RpcError(Code.FAILED_PRECONDITION, "not while frozen")

    def accident(_: Empty) -> Empty:
        raise ZeroDivisionError("oops")

    guest.server.unary("Refuse", Empty, refuse)
    guest.server.unary("Accident", Empty, accident)
    first, second = ask(host, "Refuse"), ask(host, "Accident")
    host.wait(lambda: len(host.events) == 2)
    assert host.events == [
        ErrorReceived(first, Code.FAILED_PRECONDITION, "not while frozen"),
        ErrorReceived(second, Code.INTERNAL, "ZeroDivisionError: oops"),
    ]
    assert len(guest.log) == 1
    assert "test_server.py" in guest.log[0]


def test_a_reply_that_is_too_large_is_an_error_not_a_broken_channel(guest: Guest, host: SteppedHost) -> None:
    guest.server.unary("Huge", Empty, lambda _: HelloReply(version="x" * (2 << 20)))
    ask(host, "Huge")
    host.wait(lambda: bool(host.events))
    assert isinstance(host.events[0], ErrorReceived)
    assert host.events[0].code == Code.INTERNAL


def test_a_method_has_one_handler(guest: Guest) -> None:
    with pytest.raises(ValueError, match="Hello"):
        guest.server.unary("Hello", Empty, lambda request: request)


def test_a_deferred_reply_and_data_from_before_anybody_asked_for_it(guest: Guest, host: SteppedHost) -> None:
    calls: list[Call] = []
    guest.server.deferred("Later", Empty, lambda _, call: calls.append(call))
    stream = ask(host, "Later")
    host.session.send(stream, b"early", end=True)
    host.flush()
    host.wait(lambda: bool(calls) and bool(calls[0]._early))
    got: list[tuple[bytes, bool]] = []
    calls[0].on_data(lambda data, end: got.append((data, end)))
    assert got == [(b"early", True)]
    calls[0].respond(Empty())
    assert not calls[0].open
    calls[0].respond(Empty())  # harmless
    host.wait(lambda: bool(host.events))
    assert host.events == [ResponseReceived(stream, b"", True)]


def test_back_pressure_reaches_the_handler_and_lifts(guest: Guest, host: SteppedHost) -> None:
    calls: list[Call] = []
    guest.server.streaming("Bulk", Empty, lambda _, call: calls.append(call))
    stream = ask(host, "Bulk")
    host.wait(lambda: bool(calls))
    call = calls[0]
    sent = 0
    rooms: list[int] = []

    def more() -> None:
        nonlocal sent
        while call.room > 0:
            call.send(bytes(10_000))
            sent += 10_000
        rooms.append(sent)

    call.on_writable(more)
    more()
    host.wait(lambda: sent >= WINDOW + QUEUE)
    stuck = sent
    host.wait(lambda: len(data_of(host, stream)) + MAX_BODY > WINDOW)
    assert sent == stuck <= WINDOW + QUEUE + 10_000
    host.session.consume(stream, WINDOW // 2)
    host.flush()
    host.wait(lambda: sent > stuck)


def test_credit_held_back_by_the_handler_stops_the_host(guest: Guest, host: SteppedHost) -> None:
    calls: list[Call] = []
    got: list[int] = []

    def take(_: Empty, call: Call) -> None:
        calls.append(call)
        call.on_data(lambda data, end: got.append(len(data)), manual_credit=True)

    guest.server.deferred("Take", Empty, take)
    stream = ask(host, "Take")
    host.session.send(stream, bytes(WINDOW + 100_000))
    host.flush()
    host.wait(lambda: sum(got) > WINDOW - MAX_BODY)
    assert sum(got) <= WINDOW
    calls[0].consume(WINDOW)
    host.wait(lambda: (host.flush(), sum(got) == WINDOW + 100_000)[1])


def test_a_cancelled_call_is_told_once_and_its_methods_become_harmless(
    guest: Guest, host: SteppedHost
) -> None:
    calls: list[Call] = []
    told: list[bool] = []

    def begin(_: Empty, call: Call) -> None:
        calls.append(call)
        call.on_cancel(lambda: told.append(call.lost))

    guest.server.streaming("Long", Empty, begin)
    stream = ask(host, "Long")
    host.wait(lambda: bool(calls))
    host.session.cancel(stream)
    host.flush()
    host.wait(lambda: bool(told))
    call = calls[0]
    call.send(b"x")
    call.send(end=True)
    call.respond(Empty())
    call.fail(Code.ABORTED, "x")
    call.consume(5)
    assert (told, call.open, call.room) == ([False], False, 0)


def test_a_reset_loses_every_call(guest: Guest, host: SteppedHost) -> None:
    calls: list[Call] = []
    told: list[bool] = []

    def begin(_: Empty, call: Call) -> None:
        calls.append(call)
        call.send(bytes(1000))
        call.on_cancel(lambda: told.append(call.lost))

    guest.server.streaming("Long", Empty, begin)
    for _ in range(3):
        ask(host, "Long")
    host.wait(lambda: len(calls) == 3)
    host.guest.loop.remove(guest.host_fd)
    SteppedHost(guest).reset()
    assert told == [True] * 3


def test_a_callback_that_raises_later_fails_its_call_and_tells_its_owner(
    guest: Guest, host: SteppedHost
) -> None:
    told: list[bool] = []

    def begin(_: Empty, call: Call) -> None:
        def data(body: bytes, end: bool) -> None:
            raise RpcError(Code.INVALID_ARGUMENT, "no tar")

        call.on_data(data)
        call.on_cancel(lambda: told.append(True))

    guest.server.deferred("CopyIn", Empty, begin)
    stream = ask(host, "CopyIn")
    host.session.send(stream, b"garbage")
    host.flush()
    host.wait(lambda: bool(host.events))
    assert host.events == [ErrorReceived(stream, Code.INVALID_ARGUMENT, "no tar")]
    assert told == [True]


def test_a_message_larger_than_a_frame_is_refused_to_its_sender(guest: Guest, host: SteppedHost) -> None:
    def begin(_: Empty, call: Call) -> None:
        call.send_message(HealthEvent(output="x" * MAX_BODY))

    guest.server.streaming("Health", Empty, begin)
    ask(host, "Health")
    host.wait(lambda: bool(host.events))
    assert isinstance(host.events[0], ErrorReceived)
    assert LocalProtocolError.__name__ in host.events[0].message


def test_a_signal_overtakes_bulk_both_ways(guest: Guest, host: SteppedHost) -> None:
    def flood(_: Empty, call: Call) -> None:
        call.on_writable(lambda: call.send(bytes(max(call.room, 0))))
        call.send(bytes(QUEUE))

    guest.server.streaming("Flood", Empty, flood)
    guest.server.unary("Signal", Empty, lambda _: MainState(pid=1))
    host.hold()
    bulk = ask(host, "Flood")
    host.wait(lambda: guest.server._session.queued(bulk) > 0 and len(guest.server._out) > 0)
    signal = ask(host, "Signal")
    host.unhold()
    host.wait(lambda: any(isinstance(event, ResponseReceived) for event in host.events))
    place = next(n for n, event in enumerate(host.events) if isinstance(event, ResponseReceived))
    assert host.events[place].stream == signal
    ahead = sum(len(event.body) for event in host.events[:place] if isinstance(event, DataReceived))
    # Only what the socket held already, and one frame of ours, may come before.
    assert ahead < WINDOW
    host.wait(lambda: len(data_of(host, bulk)) + MAX_BODY > WINDOW)


def test_a_broken_host_costs_its_session_and_may_come_back(guest: Guest, host: SteppedHost) -> None:
    os.write(guest.host_fd, encode(Type.DATA, b"x", stream=99))
    host.wait(lambda: bool(guest.log))
    assert "broke the protocol" in guest.log[0]
    guest.loop.remove(guest.host_fd)
    SteppedHost(guest).reset()


def test_a_host_that_is_away_too_long_loses_its_calls(
    guest: Guest, host: SteppedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tether.server._ABSENT", 0.01)
    told: list[bool] = []
    guest.server.streaming("Long", Empty, lambda _, call: call.on_cancel(lambda: told.append(call.lost)))
    ask(host, "Long")
    host.wait(lambda: bool(guest.server._calls))
    guest.loop.remove(guest.host_fd)
    os.close(guest.host_fd)
    guest.host_fd = os.open("/dev/null", os.O_RDWR)
    host.wait(lambda: bool(told))
    assert told == [True]


def test_a_host_that_asks_and_never_reads_is_not_read_any_more(guest: Guest, host: SteppedHost) -> None:
    guest.server.unary("Big", Empty, lambda _: HelloReply(version="x" * 100_000))
    host.hold()
    asked = 0

    def ask_more() -> bool:
        nonlocal asked
        if guest.server._stalled:
            return True
        if asked < 1000:
            ask(host, "Big")
            asked += 1
        return False

    host.wait(ask_more)
    assert guest.server._session.backlog < 16 << 20
    host.unhold()
    host.wait(lambda: len(host.events) == asked)
    assert all(isinstance(event, ResponseReceived) for event in host.events)


def test_the_channel_may_be_a_serial_line(tmp_path: Path) -> None:
    import pty

    guest = Guest(tmp_path / "journal")
    master, slave = pty.openpty()
    guest.server.close()
    guest.server = type(guest.server)(guest.loop, log=guest.log.append)
    guest.server.unary("TimeSet", TimeSetRequest, lambda request: TimeSetReply(drift=request.time))
    os.write(slave, b"firmware says hello\r\n")
    guest.server.serve(slave)
    os.close(guest.host_fd)
    guest.host_fd = master
    host = SteppedHost(guest)
    host.reset()
    stream = ask(
        host,
        "TimeSet",
        TimeSetRequest(time=int.from_bytes(b"\x11\x13\x03\x04\r\n", "big")).SerializeToString(),
    )
    host.wait(lambda: bool(host.events))
    assert isinstance(host.events[0], ResponseReceived)
    assert host.events[0].stream == stream
    guest.server.close()
    os.close(slave)
    guest.close()


def test_serving_twice_is_a_mistake(guest: Guest) -> None:
    with pytest.raises(ValueError, match="already"):
        guest.server.serve(guest.channel_fd)


def test_a_reset_in_the_middle_of_a_frame_of_ours(guest: Guest, host: SteppedHost) -> None:
    guest.server.streaming("Bulk", Empty, lambda _, call: call.send(bytes(WINDOW)))
    host.hold()
    ask(host, "Bulk")
    host.wait(lambda: len(guest.server._out) > 0)
    os.set_blocking(guest.host_fd, True)
    os.read(guest.host_fd, 50_001)  # the old host got so far
    again = SteppedHost(guest)
    again.reset()
    assert not any(isinstance(event, SessionStarted) for event in again.events)
