"""Files are whole or absent, and what an unfinished step left is swept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portlayer.hypervisor.durable import remove_directory, sweep, write_file


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    write_file(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_until_the_rename_the_old_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_link_in_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    (tmp_path / ".new-f").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        write_file(tmp_path / "f", b"new")
    assert victim.read_bytes() == b"keep"


def test_a_directory_goes_whole_and_once(tmp_path: Path) -> None:
    directory = tmp_path / "vm"
    (directory / "deep").mkdir(parents=True)
    (tmp_path / ".gone-vm").mkdir()  # a former removal of the same name was killed
    remove_directory(directory)
    remove_directory(directory)
    assert list(tmp_path.iterdir()) == []


def test_sweep_takes_what_has_no_final_name(tmp_path: Path) -> None:
    (tmp_path / ".new-a").mkdir()
    (tmp_path / ".gone-b").mkdir()
    (tmp_path / ".gone-b" / "file").write_bytes(b"x")
    (tmp_path / ".new-config.json").write_bytes(b"{")
    (tmp_path / "vm").mkdir()
    assert sorted(sweep(tmp_path)) == [".gone-b", ".new-a", ".new-config.json"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["vm"]
