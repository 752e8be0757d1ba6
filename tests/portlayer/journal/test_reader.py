"""Reading forwards while the hypervisor rotates under the reader's feet."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portlayer.journal.reader import JournalReader, Snapshot
from portlayer.journal.records import Kind
from tests.portlayer.journal.support import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def read_all(reader: JournalReader) -> bytes:
    said = b""
    while entries := reader.read():
        said += b"".join(entry.data for entry in entries if entry.kind == Kind.OUTPUT)
    return said


def from_start(path: Path) -> JournalReader:
    snapshot = Snapshot.open(path)
    return JournalReader(snapshot, snapshot.start)


def test_rotated_files_are_read_oldest_first(journal: Journal) -> None:
    for piece in (b"a", b"b", b"c"):
        journal.out(piece)
        journal.rotate()
    journal.out(b"d")
    reader = from_start(journal.path)
    assert read_all(reader) == b"abcd"
    reader.close()


def test_a_reader_follows_over_rotations(journal: Journal) -> None:
    journal.out(b"a")
    reader = from_start(journal.path)
    assert read_all(reader) == b"a"
    journal.rotate()
    assert read_all(reader) == b""
    journal.out(b"b")
    assert read_all(reader) == b"b"
    journal.rotate()
    journal.rotate()
    journal.out(b"c")
    assert read_all(reader) == b"c"
    reader.close()


def test_what_is_written_to_the_renamed_file_is_not_missed(journal: Journal) -> None:
    """Between the rename and the change-over the guest's words go to `journal.1`."""
    journal.out(b"a")
    reader = from_start(journal.path)
    assert read_all(reader) == b"a"
    journal.rotate()
    live, journal.path = journal.path, journal.path.with_name("journal.1")
    journal.out(b"late")
    journal.path = live
    journal.out(b"new")
    assert read_all(reader) == b"latenew"
    reader.close()


def test_a_reader_whose_file_was_deleted_finishes_it_and_goes_on(journal: Journal) -> None:
    journal.out(b"a")
    reader = from_start(journal.path)
    journal.out(b"b")
    journal.rotate(keep=0)
    journal.out(b"c")
    assert read_all(reader) == b"abc"
    reader.close()


def test_a_journal_that_is_not_there_yet_is_read_once_it_is(tmp_path: Path) -> None:
    reader = from_start(tmp_path / "journal")
    assert reader.read() == []
    journal = Journal(tmp_path / "journal")
    journal.out(b"first")
    assert read_all(reader) == b"first"
    reader.close()


def test_from_the_end_only_news_are_seen(journal: Journal) -> None:
    journal.out(b"old")
    snapshot = Snapshot.open(journal.path)
    reader = JournalReader(snapshot, snapshot.end)
    assert read_all(reader) == b""
    journal.out(b"new")
    assert read_all(reader) == b"new"
    reader.close()


def test_a_vm_that_ended_right_after_a_rotation_is_read_to_its_end(journal: Journal) -> None:
    """Ours is .2, .1 holds the rest, the live file is empty and stays so."""
    journal.out(b"a")
    reader = from_start(journal.path)
    assert read_all(reader) == b"a"
    journal.rotate()
    journal.out(b"b")
    journal.rotate()
    assert read_all(reader) == b"b"
    reader.close()


steps = st.lists(
    st.one_of(st.binary(min_size=1, max_size=50), st.just("rotate"), st.just("read")), max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps)
def test_every_byte_is_seen_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, script: list[object]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("vm") / "journal")
    reader = from_start(journal.path)
    wrote = read = b""
    for step in script:
        if step == "rotate":
            journal.rotate(keep=99)
        elif step == "read":
            read += read_all(reader)
        else:
            assert isinstance(step, bytes)
            journal.out(step)
            wrote += step
    assert read + read_all(reader) == wrote
    reader.close()


def test_what_a_reader_holds_is_limited(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portlayer.journal.reader.HELD_LIMIT", 500)
    journal.out(b"a")
    reader = from_start(journal.path)
    for _ in range(20):
        journal.out(b"x" * 300)
        reader.hold()
        journal.rotate(keep=0)
    journal.out(b"end")
    said = read_all(reader)
    assert said.startswith(b"a")
    assert said.endswith(b"end")
    assert len(said) < 5 * 300
    reader.close()
