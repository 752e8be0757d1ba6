"""The journal port: order, back-pressure, errors."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tether.support import raising_loop, run_until
from tether.journal import OUTPUT_PIECE, STDERR, STDOUT, JournalReader, Kind
from tether.loop import Loop
from tether.recorder import Recorder

BOOT = bytes(16)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop, errors = raising_loop()
    yield loop
    loop.close()
    assert errors == []


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_records_reach_a_file_in_order(loop: Loop, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "journal", os.O_CREAT | os.O_WRONLY)
    recorder = Recorder(loop, fd)
    flushed: list[bool] = []
    recorder.boot(BOOT)
    recorder.record(Kind.STARTED, b"state")
    recorder.output(STDOUT, b"hello")
    recorder.output(STDERR, b"x" * (OUTPUT_PIECE + 1))
    recorder.when_flushed(lambda: flushed.append(True))
    run_until(loop, lambda: bool(flushed))
    records = JournalReader().feed((tmp_path / "journal").read_bytes())
    assert [(record.kind, record.stream, len(record.body)) for record in records] == [
        (Kind.BOOT, 0, 16),
        (Kind.STARTED, 0, 5),
        (Kind.OUTPUT, STDOUT, 5),
        (Kind.OUTPUT, STDERR, OUTPUT_PIECE),
        (Kind.OUTPUT, STDERR, 1),
    ]
    recorder.close()
    os.close(fd)


def test_a_port_that_takes_nothing_ends_the_room_and_loses_nothing(loop: Loop, pipe: tuple[int, int]) -> None:
    read, write = pipe
    recorder = Recorder(loop, write, limit=100_000)
    sent = 0
    while recorder.room:
        recorder.output(STDOUT, b"%07d\n" % sent)
        sent += 1
    recorder.record(Kind.EXITED, b"the end")  # never refused
    events: list[str] = []
    recorder.when_room(lambda: events.append("room" if recorder.room else "no room"))
    recorder.when_flushed(lambda: events.append("flushed"))
    run_until(loop, lambda: True)
    assert events == []
    for _ in range(10):
        recorder.record(Kind.EXEC, bytes(30_000))  # far beyond the limit
    reader = JournalReader()
    records = []
    os.set_blocking(read, False)

    def read_some() -> bool:
        try:
            records.extend(reader.feed(os.read(read, 65536)))
        except BlockingIOError:
            return recorder.pending == 0
        return False

    run_until(loop, read_some)
    # Flushed is what was recorded before the question; room there is once the rest has gone, too.
    assert events == ["flushed", "room"]
    assert [record.body for record in records[:-10]] == [*(b"%07d\n" % n for n in range(sent)), b"the end"]
    assert reader.lost == 0
    assert recorder.pending == 0
    recorder.close()


def test_output_goes_from_a_descriptor_to_the_port(loop: Loop, pipe: tuple[int, int], tmp_path: Path) -> None:
    """First the port takes it, then it is full, then it takes it again: one journal, all bytes."""
    read, write = pipe
    recorder = Recorder(loop, write)
    source = tmp_path / "source"
    content = os.urandom(1000 + 4 * OUTPUT_PIECE + 100)
    source.write_bytes(content)
    fd = os.open(source, os.O_RDONLY)
    os.set_blocking(read, False)
    journal = bytearray()

    def drain() -> bool:
        with contextlib.suppress(BlockingIOError):
            journal.extend(os.read(read, 1 << 20))
        return recorder.pending == 0

    assert recorder.output_from(fd, STDOUT, 1000) == 1000
    run_until(loop, drain)
    for _ in range(4):
        recorder.output_from(fd, STDOUT, 1 << 20)
    recorder.record(Kind.EXITED, b"the end")
    assert not recorder.room
    run_until(loop, drain)
    assert recorder.output_from(fd, STDERR, 1 << 20) == 100
    assert recorder.output_from(fd, STDERR, 1 << 20) == 0
    run_until(loop, drain)
    drain()
    records = JournalReader().feed(bytes(journal))
    assert b"".join(record.body for record in records if record.kind == Kind.OUTPUT) == content
    assert [record.sequence for record in records] == list(range(len(records)))
    recorder.close()
    os.close(fd)


def test_a_full_disk_is_tried_again(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tether.recorder._RETRY", 0.001)
    fd = os.open(tmp_path / "journal", os.O_CREAT | os.O_WRONLY)
    log: list[str] = []
    recorder = Recorder(loop, fd, log=log.append)
    real_write, failures = os.write, [3]

    def write(target: int, data: bytes) -> int:
        if target == fd and failures[0]:
            failures[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(target, data)

    monkeypatch.setattr("tether.recorder.os.write", write)
    flushed: list[bool] = []
    recorder.record(Kind.EXITED, b"state")
    recorder.when_flushed(lambda: flushed.append(True))
    run_until(loop, lambda: bool(flushed))
    assert [record.body for record in JournalReader().feed((tmp_path / "journal").read_bytes())] == [b"state"]
    assert len(log) == 3
    assert "No space left" in log[0]
    recorder.close()
    os.close(fd)


def test_waiters_with_nothing_to_wait_for_are_called_from_the_loop(loop: Loop, pipe: tuple[int, int]) -> None:
    recorder = Recorder(loop, pipe[1])
    events: list[str] = []
    recorder.when_room(lambda: events.append("room"))
    recorder.when_flushed(lambda: events.append("flushed"))
    assert events == []
    run_until(loop, lambda: len(events) == 2)
    recorder.close()
