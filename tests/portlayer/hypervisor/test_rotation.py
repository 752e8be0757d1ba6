"""Moving and shortening files that somebody else appends to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portlayer.hypervisor import rotation


def names(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}


def test_files_move_up_by_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for number in range(4):
        path.write_bytes(b"%d" % number)
        rotation.shift(path, 9)
    assert names(path) == {"journal.4": b"0", "journal.3": b"1", "journal.2": b"2", "journal.1": b"3"}


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for name in ("journal", "journal.1", "journal.2", "journal.12", "journal.old"):
        (tmp_path / name).touch()
    rotation.prune(path, 1)
    assert sorted(names(path)) == ["journal", "journal.1", "journal.old"]


def test_a_gap_from_a_killed_rotation_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"new")
    (tmp_path / "journal.2").write_bytes(b"old")  # killed between the moves
    rotation.shift(path, 9)
    assert names(path) == {"journal.3": b"old", "journal.1": b"new"}


def test_trimming_keeps_the_end_and_the_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "TRIM_AT", 100)
    monkeypatch.setattr(rotation, "TRIM_TO", 10)
    path = tmp_path / "console.log"
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"x" * 100)
    rotation.trim(path)
    assert path.stat().st_size == 100
    os.write(writer, b"0123456789")
    rotation.trim(path)
    os.write(writer, b"more")
    os.close(writer)
    assert path.read_bytes() == b"[shortened]\n0123456789more"
    rotation.trim(tmp_path / "absent")
