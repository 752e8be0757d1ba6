"""Standard input by offset."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tether.support import raising_loop, run_until
from tether.loop import Loop
from tether.stdin import Stdin


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop, errors = raising_loop()
    yield loop
    loop.close()
    assert errors == []


def read_all(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 65536):
        data += piece
    os.close(fd)
    return data


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=10))
def test_resent_bytes_are_typed_once(text: bytes, resends: list[tuple[int, int]]) -> None:
    loop, errors = raising_loop()
    read, write = os.pipe()
    stdin = Stdin(loop)
    stdin.start(write, terminal=False)
    for back, ahead in resends:
        offset = max(0, stdin.accepted - back)
        stdin.accept(offset, text[offset : stdin.accepted + ahead])
    stdin.accept(0, text)
    stdin.end()
    loop.close()
    assert read_all(read) == text
    assert (stdin.accepted, errors) == (len(text), [])


def test_a_gap_is_refused(loop: Loop) -> None:
    stdin = Stdin(loop)
    stdin.accept(0, b"abc")
    with pytest.raises(ValueError, match="input at 4, but 3 is next"):
        stdin.accept(4, b"e")


def test_input_from_before_the_start_is_delivered(loop: Loop) -> None:
    read, write = os.pipe()
    stdin = Stdin(loop)
    stdin.accept(0, b"early ")
    stdin.end()
    stdin.start(write, terminal=False)
    assert read_all(read) == b"early "


def test_a_process_that_does_not_read_ends_the_room_until_it_does(loop: Loop) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    stdin = Stdin(loop)
    stdin.start(write, terminal=False)
    sent = 0
    while stdin.room:
        stdin.accept(sent, b"x" * 10_000)
        sent += 10_000
    room: list[bool] = []
    stdin.when_room(lambda: room.append(stdin.room))
    run_until(loop, lambda: True)
    assert room == []
    got = 0

    def read_some() -> bool:
        nonlocal got
        try:
            got += len(os.read(read, 65536))
        except BlockingIOError:
            return got == sent
        return False

    run_until(loop, read_some)
    assert room == [True]
    stdin.close()
    os.close(read)


def test_a_process_that_closes_its_input_swallows_the_rest(loop: Loop) -> None:
    read, write = os.pipe()
    stdin = Stdin(loop)
    stdin.start(write, terminal=False)
    os.close(read)
    stdin.accept(0, b"x")
    stdin.accept(1, b"y" * 200_000)
    assert (stdin.accepted, stdin.room) == (200_001, True)


def test_a_process_without_input_swallows_it(loop: Loop) -> None:
    stdin = Stdin(loop)
    stdin.start(None, terminal=False)
    stdin.accept(0, b"y" * 200_000)
    stdin.end()
    assert (stdin.accepted, stdin.room) == (200_000, True)


def test_a_terminals_input_has_no_end(loop: Loop) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    stdin = Stdin(loop)
    stdin.start(master, terminal=True)
    stdin.accept(0, b"one ")
    stdin.end()
    stdin.accept(4, b"two")
    assert os.read(slave, 100) == b"one two"
    stdin.close()
    os.close(slave)


def test_closing_wakes_whoever_waits_for_room(loop: Loop) -> None:
    read, write = os.pipe()
    stdin = Stdin(loop)
    stdin.start(write, terminal=False)
    stdin.accept(0, bytes(200_000))
    woken: list[bool] = []
    stdin.when_room(lambda: woken.append(True))
    stdin.close()
    run_until(loop, lambda: bool(woken))
    os.close(read)
