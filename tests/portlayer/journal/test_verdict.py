"""How a run began and ended, from its journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.journal.verdict import ending, grew_since, journal_end, opening
from tests.portlayer.journal.support import Journal
from tether.journal import Kind
from tether.tether_pb2 import MainState


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_the_last_run_counts(journal: Journal) -> None:
    journal.boot()
    journal.exited(1)
    mark = journal_end(journal.path)
    journal.boot()
    journal.started()
    journal.out(b"x" * 30000)
    journal.exited(2)
    assert opening(journal.path, *mark).state == MainState.RUNNING
    assert ending(journal.path, *mark).exit_code == 2


def test_a_run_that_said_nothing_has_no_ending(journal: Journal) -> None:
    journal.boot()
    journal.exited(1)
    mark = journal_end(journal.path)
    assert not grew_since(journal.path, *mark)
    journal.boot()
    journal.started()
    assert grew_since(journal.path, *mark)
    assert ending(journal.path, *mark) is None


def test_a_boot_forgets_the_run_before_it(journal: Journal) -> None:
    journal.boot()
    journal.exited(1)
    journal.boot()
    assert ending(journal.path, 0, 0) is None


def test_the_ending_may_lie_in_the_rotated_file(journal: Journal) -> None:
    mark = journal_end(journal.path)
    journal.boot()
    journal.exited(3)
    journal.rotate()
    assert ending(journal.path, *mark).exit_code == 3


def test_a_missing_journal_says_nothing(tmp_path: Path) -> None:
    assert opening(tmp_path / "no", 0, 0) is None
    assert ending(tmp_path / "no", 0, 0) is None
    assert not grew_since(tmp_path / "no", 0, 0)


def test_an_ending_that_makes_no_sense_is_none(journal: Journal) -> None:
    journal.boot()
    journal.raw(journal.writer.record(Kind.EXITED, b"\xff\xff"))
    assert ending(journal.path, 0, 0) is None


def test_the_kind_of_the_record_decides_not_its_content(journal: Journal) -> None:
    journal.boot()
    lie = MainState(state=MainState.RUNNING, exit_code=9)
    journal.raw(journal.writer.record(Kind.EXITED, lie.SerializeToString()))
    assert ending(journal.path, 0, 0).state == MainState.EXITED
