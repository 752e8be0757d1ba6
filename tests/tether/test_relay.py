"""Connections on a socket in the guest become calls of the host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tether.support import raising_loop, run_until
from tether.loop import Loop
from tether.relay import Relay
from tether.tether_pb2 import Empty, RelayData


class FakeCall:
    """As much of a call as a relay uses; ``room`` and credit are the test's."""

    def __init__(self) -> None:
        self.sent: list[RelayData] = []
        self.answered = self.ended = False
        self.room = 1 << 20
        self.consumed = 0
        self.cancelled: Callable[[], None] | None = None
        self.data: Callable[[bytes, bool], None] | None = None
        self.writable: Callable[[], None] | None = None

    def respond(self, message: Empty) -> None:
        self.answered = True

    def send_message(self, message: RelayData) -> None:
        self.sent.append(message)

    def send(self, data: bytes = b"", *, end: bool = False) -> None:
        self.ended = self.ended or end

    def consume(self, count: int) -> None:
        self.consumed += count

    def on_cancel(self, callback: Callable[[], None] | None) -> None:
        self.cancelled = callback

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        self.writable = callback

    def on_data(self, callback: Callable[[bytes, bool], None], *, manual_credit: bool) -> None:
        assert manual_credit
        self.data = callback

    @property
    def received(self) -> bytes:
        return b"".join(message.data for message in self.sent)


calls: list[FakeCall] = []  # of the test that runs


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Loop, Relay, Path, list[BaseException]]]:
    loop, errors = raising_loop()
    path = tmp_path / "engine.sock"
    relay = Relay(loop, path=str(path))
    calls.clear()
    yield loop, relay, path, errors
    for call in calls:
        if call.answered and call.cancelled is not None:
            call.cancelled()
    relay._listener.close()
    loop.close()


def client(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made


def accepted(relay: Any) -> FakeCall:
    call = FakeCall()
    relay.accept(Empty(), call)
    calls.append(call)
    return call


def test_both_halves_end_alone(scene: Any) -> None:
    loop, relay, path, errors = scene
    call = accepted(relay)
    with client(path) as peer:
        peer.sendall(b"question")
        run_until(loop, lambda: call.received == b"question")
        assert call.answered
        peer.shutdown(socket.SHUT_WR)
        run_until(loop, lambda: call.sent[-1].end)
        assert not call.ended
        assert call.data is not None
        call.data(b"answer", False)
        call.data(b"", True)
        run_until(loop, lambda: call.ended)
        assert peer.recv(100) == b"answer"
        assert peer.recv(100) == b""
    assert call.consumed == len(b"answer")
    assert errors == []


def test_connections_wait_for_calls_and_calls_for_connections(scene: Any) -> None:
    loop, relay, path, errors = scene
    with client(path) as early:
        early.sendall(b"early")
        first, second = accepted(relay), accepted(relay)
        run_until(loop, lambda: first.received == b"early")
        assert not second.answered
        with client(path) as later:
            later.sendall(b"later")
            run_until(loop, lambda: second.received == b"later")
    assert errors == []


def test_a_call_that_is_gone_takes_no_connection(scene: Any) -> None:
    loop, relay, path, errors = scene
    gone, here = accepted(relay), accepted(relay)
    assert gone.cancelled is not None
    gone.cancelled()
    with client(path) as peer:
        peer.sendall(b"x")
        run_until(loop, lambda: here.received == b"x")
        assert here.cancelled is not None
        here.cancelled()
        assert peer.recv(1) == b""
    assert not gone.answered
    assert errors == []


def test_without_room_nothing_is_read(scene: Any) -> None:
    loop, relay, path, errors = scene
    call = accepted(relay)
    call.room = 0
    with client(path) as peer:
        peer.sendall(b"x" * 1000)
        run_until(loop, lambda: call.answered)
        loop.after(0.01, loop.stop)
        loop.run()
        assert call.received == b""
        call.room = 1 << 20
        assert call.writable is not None
        call.writable()
        run_until(loop, lambda: len(call.received) == 1000)
    assert errors == []


def test_a_peer_that_vanishes_ends_the_call(scene: Any) -> None:
    loop, relay, path, errors = scene
    call = accepted(relay)
    peer = client(path)
    run_until(loop, lambda: call.answered)
    peer.close()
    assert call.data is not None
    with contextlib.suppress(OSError):
        call.data(b"x" * 100_000, False)
    run_until(loop, lambda: call.ended or call.sent[-1:] == [RelayData(end=True)])
    if not call.ended:
        call.data(b"x", True)
        run_until(loop, lambda: call.ended)
    assert errors == []
