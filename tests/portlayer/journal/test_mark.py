"""Marks: whoever goes on behind any chunk sees the rest, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portlayer.journal.mark import END, decode_mark, encode_mark
from portlayer.journal.reader import JournalReader, Position, Snapshot
from portlayer.journal.shape import Chunk, Shaper
from portlayer.journal.tail import TailStart
from tests.portlayer.journal.support import Journal

pieces = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 2]),
        st.sampled_from([b"a", b"b\n", b"\n", b"c\nd", b"e\nf\n", b"x" * 20_000]),
    ),
    min_size=1,
    max_size=12,
)


def read(path: Path, mark: bytes, *, lines: bool) -> list[tuple[Chunk, bytes]]:
    """All chunks from a mark (or the start) on, each with its own mark."""
    snapshot = Snapshot.open(path)
    start = decode_mark(mark, snapshot) if mark else TailStart(snapshot.start)
    reader = JournalReader(snapshot, start.position)
    shaper = Shaper(streams={1, 2}, lines=lines, tail=start)
    found = []
    while entries := reader.read():
        found += [(chunk, encode_mark(chunk.next, snapshot)) for chunk in shaper.feed(entries, reader.file)]
    found += [(chunk, b"") for chunk in shaper.finish()]
    reader.close()
    return found


def shown(chunks: list[tuple[Chunk, bytes]]) -> dict[int, bytes]:
    return {
        stream: b"".join(chunk.data for chunk, _ in chunks if chunk.stream == stream) for stream in (1, 2)
    }


@settings(deadline=None)
@given(pieces, st.booleans(), st.integers(0, 5))
def test_going_on_behind_any_chunk_shows_the_rest(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, bytes]], lines: bool, rotation: int
) -> None:
    path = tmp_path_factory.mktemp("mark") / "journal"
    journal = Journal(path)
    for number, (stream, data) in enumerate(said):
        if number == rotation:
            journal.rotate()
        if stream:
            journal.out(data, stream)
        else:
            journal.exited()
    whole = read(path, b"", lines=lines)
    for number, (_, mark) in enumerate(whole):
        if not mark:
            continue
        rest = read(path, mark, lines=lines)
        before, after = shown(whole[: number + 1]), shown(rest)
        assert {stream: before[stream] + after[stream] for stream in (1, 2)} == shown(whole)
        if lines:
            assert [chunk.time for chunk, _ in rest] == [chunk.time for chunk, _ in whole[number + 1 :]]


def test_a_mark_survives_a_rotation(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.out(b"one")
    (_, mark) = read(journal.path, b"", lines=False)[-1]
    journal.out(b"two")
    journal.rotate()
    journal.out(b"three")
    assert shown(read(journal.path, mark, lines=False))[1] == b"twothree"


def test_of_a_file_that_is_gone_the_rest_is_shown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.out(b"one")
    (_, mark) = read(journal.path, b"", lines=False)[-1]
    journal.rotate(keep=0)
    journal.out(b"two")
    assert shown(read(journal.path, mark, lines=False))[1] == b"two"


def test_a_mark_made_before_there_was_a_journal_is_its_beginning(tmp_path: Path) -> None:
    snapshot = Snapshot.open(tmp_path / "journal")
    mark = encode_mark({1: (snapshot.end, 0), END: (snapshot.end, 0)}, snapshot)
    Journal(tmp_path / "journal").out(b"one")
    later = Snapshot.open(tmp_path / "journal")
    assert decode_mark(mark, later).position == Position(0, 0)
    later.close()


@pytest.mark.parametrize("mark", [b"", b"x", bytes(25), bytes(100), b"\x01" * 50, b"\x03" * 25])
def test_what_is_no_mark_is_refused(tmp_path: Path, mark: bytes) -> None:
    Journal(tmp_path / "journal")
    snapshot = Snapshot.open(tmp_path / "journal")
    with pytest.raises(ValueError, match="a mark"):
        decode_mark(mark, snapshot)
    snapshot.close()
