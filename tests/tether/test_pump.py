"""Pumps: back-pressure, the ends of pipes and terminals, children left behind."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Callable, Iterator

import pytest

from tests.tether.support import raising_loop, run_until
from tether.loop import Loop
from tether.pump import CHUNK, Pump


class Bucket:
    """A sink with a rim."""

    chunk = CHUNK

    def __init__(self, rim: int = 1 << 30) -> None:
        self.rim = rim
        self.data = b""
        self.pieces: list[int] = []
        self._waiter: Callable[[], None] | None = None

    @property
    def room(self) -> bool:
        return len(self.data) < self.rim

    def read_from(self, fd: int, limit: int) -> int:
        assert self.room
        data = os.read(fd, limit)
        self.data += data
        self.pieces.append(len(data))
        return len(data)

    def when_room(self, callback: Callable[[], None]) -> None:
        self._waiter = callback

    @property
    def waited_for(self) -> bool:
        return self._waiter is not None

    def raise_rim(self, rim: int) -> None:
        self.rim = rim
        waiter, self._waiter = self._waiter, None
        assert waiter is not None
        waiter()


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tether.pump._LINGER", 0.05)
    monkeypatch.setattr("tether.pump._PTY_RETRY", 0.005)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop, errors = raising_loop()
    yield loop
    loop.close()
    assert errors == []


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_a_pipes_bytes_and_its_end(loop: Loop) -> None:
    read, write = os.pipe()
    bucket, ends = Bucket(), []
    Pump(loop, read, bucket, lambda: ends.append(bucket.data))
    os.write(write, b"hello")
    os.close(write)
    run_until(loop, lambda: bool(ends))
    assert ends == [b"hello"]
    assert closed(read)


def test_a_full_sink_stops_the_reading_and_nothing_is_lost_at_a_hang_up(loop: Loop) -> None:
    read, write = os.pipe()
    bucket, ends = Bucket(rim=1), []
    pump = Pump(loop, read, bucket, lambda: ends.append(True))
    blob = bytes(range(256)) * 200
    os.write(write, blob)
    os.close(write)
    run_until(loop, lambda: bucket.waited_for)
    pump.finish()
    first = len(bucket.data)
    assert first < len(blob)
    run_until(loop, lambda: pump._timer is None)  # the linger is over, and yet:
    assert (len(bucket.data), ends) == (first, [])
    while not ends:
        bucket.raise_rim(len(bucket.data) + 1)
        run_until(loop, lambda: bool(ends) or bucket.waited_for)
    assert bucket.data == blob


def test_a_child_left_behind_cannot_hold_the_stream_open(loop: Loop) -> None:
    read, write = os.pipe()
    bucket, ends = Bucket(), []
    pump = Pump(loop, read, bucket, lambda: ends.append(True))
    pump.finish()
    os.write(write, b"last words")
    run_until(loop, lambda: bool(ends))
    assert bucket.data == b"last words"
    assert closed(read)
    os.close(write)


def test_a_child_that_floods_after_the_end_is_cut_off(loop: Loop) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    bucket, ends = Bucket(), []
    pump = Pump(loop, read, bucket, lambda: ends.append(True))

    def flood() -> bool:
        try:
            os.write(write, b"y" * 4096)
        except (BlockingIOError, BrokenPipeError):
            return bool(ends)
        return bool(ends)

    pump.finish()
    run_until(loop, flood)
    assert closed(read)
    os.close(write)


def test_a_terminals_output_survives_the_moment_in_which_nobody_has_it_open(loop: Loop) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    bucket, ends = Bucket(), []
    pump = Pump(loop, master, bucket, lambda: ends.append(True))
    os.write(slave, b"one ")
    run_until(loop, lambda: bucket.data == b"one ")
    os.close(slave)
    run_until(loop, lambda: pump._timer is not None)  # EIO: waits for the next one
    slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
    os.write(slave, b"two")
    run_until(loop, lambda: bucket.data == b"one two")
    os.close(slave)
    pump.finish()
    run_until(loop, lambda: bool(ends))
    assert closed(master)


def test_what_follows_a_small_piece_is_gathered(loop: Loop) -> None:
    read, write = os.pipe()
    bucket, ends = Bucket(), []
    Pump(loop, read, bucket, lambda: ends.append(True), gather=0.02)
    os.write(write, b"one ")
    run_until(loop, lambda: bucket.data == b"one ")  # at once
    os.write(write, b"two ")
    loop.after(0.001, lambda: os.write(write, b"three"))
    run_until(loop, lambda: bucket.data == b"one two three")
    assert bucket.pieces == [4, 9]
    os.close(write)
    run_until(loop, lambda: bool(ends))


def test_a_large_piece_is_not_worth_waiting_for_company(loop: Loop) -> None:
    read, write = os.pipe()
    bucket = Bucket()
    pump = Pump(loop, read, bucket, lambda: None, gather=3600)
    for number in range(1, 4):
        os.write(write, bytes(40_000))
        run_until(loop, lambda number=number: len(bucket.data) == number * 40_000)  # type: ignore[misc]
    pump.close()
    os.close(write)


def test_the_end_of_the_process_ends_the_gathering(loop: Loop) -> None:
    read, write = os.pipe()
    bucket, ends = Bucket(), []
    pump = Pump(loop, read, bucket, lambda: ends.append(True), gather=3600)
    os.write(write, b"one ")
    run_until(loop, lambda: bucket.data == b"one ")
    os.write(write, b"two")
    os.close(write)
    pump.finish()
    run_until(loop, lambda: bool(ends))
    assert bucket.data == b"one two"


def test_closing_stops_without_an_end(loop: Loop) -> None:
    read, write = os.pipe()
    pump = Pump(loop, read, Bucket(), lambda: pytest.fail("ended"))
    pump.close()
    pump.close()
    pump.finish()
    assert closed(read)
    os.close(write)
