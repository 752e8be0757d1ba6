"""How output is shown: raw chunks, lines with times, filters, losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.journal.records import Entry, Kind
from portlayer.journal.shape import LARGEST_CHUNK, LONGEST_LINE, Chunk, Shaper


def out(data: bytes, *, stream: int = 1, time: int = 1, sequence: int = 0) -> Entry:
    return Entry(Kind.OUTPUT, stream, sequence, time, data, 0)


def test_neighbours_of_one_stream_become_one_chunk() -> None:
    shaper = Shaper(streams={1, 2})
    chunks = shaper.feed([out(b"a"), out(b"b"), out(b"c", stream=2), out(b"d")], 0)
    assert [(chunk.stream, chunk.data) for chunk in chunks] == [(1, b"ab"), (2, b"c"), (1, b"d")]


def test_chunks_are_bounded() -> None:
    piece = bytes(32_000)
    chunks = Shaper(streams={1}).feed([out(piece)] * 20, 0)
    assert all(len(chunk.data) <= LARGEST_CHUNK for chunk in chunks)
    assert sum(len(chunk.data) for chunk in chunks) == 20 * len(piece)


def test_only_the_wanted_streams_are_shown() -> None:
    assert Shaper(streams={2}).feed([out(b"a")], 0) == []


def test_since_and_until_are_both_inclusive() -> None:
    shaper = Shaper(streams={1}, since=2, until=3)
    chunks = shaper.feed([out(str(t).encode(), time=t) for t in (1, 2, 3, 4)], 0)
    assert [chunk.data for chunk in chunks] == [b"23"]
    assert shaper.past_until


def test_lines_carry_the_time_of_their_end() -> None:
    shaper = Shaper(streams={1, 2}, lines=True)
    assert shaper.feed([out(b"a", time=1)], 0) == []
    assert shaper.feed([out(b"b\nc\r", time=5)], 0) == [Chunk(1, 5, b"ab\n")]
    assert shaper.feed([out(b"\n\nd", time=6)], 0) == [Chunk(1, 6, b"c\r\n"), Chunk(1, 6, b"\n")]
    assert [chunk.data for chunk in shaper.finish()] == [b"d"]


def test_the_end_of_a_run_ends_its_line() -> None:
    shaper = Shaper(streams={1}, lines=True)
    end = Entry(Kind.EXITED, 0, 1, 9, b"", 0)
    assert shaper.feed([out(b"prompt"), end, out(b"next\n", sequence=2, time=11)], 0) == [
        Chunk(1, 9, b"prompt"),
        Chunk(1, 11, b"next\n"),
    ]


def test_a_line_without_end_is_cut_as_docker_cuts() -> None:
    shaper = Shaper(streams={1}, lines=True)
    chunks = shaper.feed([out(b"x" * (LONGEST_LINE + 10)), out(b"\n", sequence=1)], 0)
    assert [len(chunk.data) for chunk in chunks] == [LONGEST_LINE, 11]


@pytest.mark.parametrize("kind", [Kind.OUTPUT, Kind.HEALTH])
def test_missing_records_are_counted(kind: Kind) -> None:
    shaper = Shaper(streams={1})
    lost = [out(b"a", sequence=5), Entry(kind, 1, 8, 1, b"b", 0)]
    chunks = shaper.feed(lost, 0)
    if kind is Kind.HEALTH:
        chunks += shaper.feed([out(b"c", sequence=9)], 0)
    assert sum(chunk.lost for chunk in chunks) == 2


def test_a_boot_starts_the_sequence_anew() -> None:
    shaper = Shaper(streams={1})
    boot = Entry(Kind.BOOT, 0, 0, 1, bytes(16), 0)
    chunks = shaper.feed([out(b"a", sequence=100), boot, out(b"b", sequence=1)], 0)
    assert sum(chunk.lost for chunk in chunks) == 0


def test_plain_logs_are_fast(tmp_path: Path) -> None:
    """Not a benchmark (bench/ is): it must merely not be a hundred times too slow."""
    entries = [out(b"x" * 100 + b"\n", sequence=n) for n in range(20_000)]
    chunks = Shaper(streams={1}).feed(entries, 0)
    assert sum(len(chunk.data) for chunk in chunks) == 20_000 * 101
