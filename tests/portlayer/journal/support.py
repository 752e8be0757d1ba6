"""Journals written as a guest writes them, and the naive model of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.portlayer.fakes.hypervisor import rotate
from tether.journal import JournalWriter, Kind
from tether.tether_pb2 import MainState

__all__ = ["Journal", "naive_lines", "naive_tail"]


@dataclass
class Journal:
    """One VM's journal file; remembers what was written."""

    path: Path
    time: int = 1000
    said: list[tuple[int, int, bytes]] = field(default_factory=list)  # stream (0: end of a run), time, bytes

    def __post_init__(self) -> None:
        self.writer = JournalWriter()
        self.path.touch()

    def raw(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def boot(self) -> None:
        self.raw(self.writer.boot(bytes(16)))
        self.said.append((0, self.time, b""))

    def out(self, data: bytes, stream: int = 1) -> None:
        self.time += 10
        self.raw(self.writer.record(Kind.OUTPUT, data, stream=stream, at=self.time))
        self.said.append((stream, self.time, data))

    def started(self) -> None:
        state = MainState(state=MainState.RUNNING, started_at=self.time)
        self.raw(self.writer.record(Kind.STARTED, state.SerializeToString(), at=self.time))

    def exited(self, code: int = 0) -> None:
        self.time += 10
        state = MainState(state=MainState.EXITED, exit_code=code, finished_at=self.time)
        self.raw(self.writer.record(Kind.EXITED, state.SerializeToString(), at=self.time))
        self.said.append((0, self.time, b""))

    def lose(self) -> None:
        """A record that never reached the file."""
        self.writer.record(Kind.OUTPUT, b"lost", stream=1)

    def rotate(self, keep: int = 9) -> None:
        rotate(self.path, keep)


def naive_lines(said: Sequence[tuple[int, int, bytes]], streams: set[int]) -> list[tuple[int, int, bytes]]:
    """(index of the record in which it ends, stream, bytes) of each line, ordered by their ends."""
    lines: list[tuple[int, int, bytes]] = []
    partial: dict[int, bytes] = {}
    last: dict[int, int] = {}

    def flush() -> None:
        for stream, data in partial.items():
            if data:
                lines.append((last[stream], stream, data))
                partial[stream] = b""

    for index, (stream, _, data) in enumerate(said):
        if stream == 0:
            flush()
        elif stream in streams:
            *whole, rest = (partial.get(stream, b"") + data).split(b"\n")
            lines.extend((index, stream, line + b"\n") for line in whole)
            partial[stream] = rest
            last[stream] = index
    flush()
    return sorted(lines, key=lambda line: line[0])


def naive_tail(said: Sequence[tuple[int, int, bytes]], count: int, streams: set[int]) -> dict[int, bytes]:
    """What the last ``count`` lines say, by stream."""
    lines = naive_lines(said, streams)
    wanted = lines[len(lines) - count :] if count < len(lines) else lines
    return {s: b"".join(line for _, stream, line in wanted if stream == s) for s in streams}
