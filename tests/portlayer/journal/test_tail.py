"""The last N lines, found backwards, against a model that reads everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portlayer.journal import tail as tail_module
from portlayer.journal.reader import JournalReader, Snapshot
from portlayer.journal.records import LONGEST_RECORD
from portlayer.journal.shape import Shaper
from portlayer.journal.tail import find_tail
from tests.portlayer.journal.support import Journal, naive_tail


def tail(path: Path, count: int, streams: set[int]) -> dict[int, bytes]:
    snapshot = Snapshot.open(path)
    start = find_tail(snapshot, count, streams)
    reader = JournalReader(snapshot, start.position)
    shaper = Shaper(streams=streams, tail=start)
    said = dict.fromkeys(streams, b"")
    while entries := reader.read():
        for chunk in shaper.feed(entries, reader.file):
            said[chunk.stream] += chunk.data
    reader.close()
    return said


events = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([1, 2]), st.lists(st.sampled_from([b"x", b"\n", b"yy"]), min_size=1, max_size=8)
        ),
        st.just("exit"),
        st.just("boot"),
        st.just("rotate"),
    ),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(events, st.integers(1, 12), st.sampled_from([{1}, {2}, {1, 2}]))
def test_tail_is_what_reading_everything_says(
    tmp_path_factory: pytest.TempPathFactory, script: list[object], count: int, streams: set[int]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("vm") / "journal")
    for step in script:
        if step == "exit":
            journal.exited()
        elif step == "boot":
            journal.boot()
        elif step == "rotate":
            journal.rotate(keep=99)
        else:
            assert isinstance(step, tuple)
            journal.out(b"".join(step[1]), step[0])
    assert tail(journal.path, count, streams) == naive_tail(journal.said, count, streams)


def test_many_windows_are_crossed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "WINDOW", 1)
    journal = Journal(tmp_path / "journal")
    for number in range(4000):
        journal.out(f"line {number} {'.' * 160}\n".encode(), 1 + number % 2)
    assert journal.path.stat().st_size > 4 * LONGEST_RECORD
    for count in (1, 2, 999, 3999, 4000, 5000):
        assert tail(journal.path, count, {1, 2}) == naive_tail(journal.said, count, {1, 2})


def test_output_that_looks_like_a_journal_does_not_mislead_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "WINDOW", 1)
    inner = Journal(tmp_path / "inner")
    while inner.path.stat().st_size < 30_000:
        inner.out(b"fake\n")
    journal = Journal(tmp_path / "journal")
    for _ in range(20):
        journal.out(inner.path.read_bytes())
    assert tail(journal.path, 700, {1}) == naive_tail(journal.said, 700, {1})


def test_only_the_end_of_a_large_journal_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    for _ in range(100):
        journal.out(b"x" * 30_000 + b"\n")
    windows = []
    entries = tail_module.Snapshot.open(journal.path).files[0].__class__.entries
    monkeypatch.setattr(
        "portlayer.journal.reader.OpenFile.entries",
        lambda self, start, end: windows.append(end - start) or entries(self, start, end),
    )
    tail(journal.path, 3, {1})
    assert sum(windows) <= 2 * tail_module.WINDOW
