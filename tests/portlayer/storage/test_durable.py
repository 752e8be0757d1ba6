"""Complete or not there."""

from pathlib import Path

import pytest

from portlayer.storage import durable


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "file", b"one")
    durable.write_file(tmp_path / "file", b"two", mode=0o640)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.write_file(tmp_path / "file", b"one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        durable.write_file(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_directory_is_published_or_gone(tmp_path: Path) -> None:
    with durable.new_directory(tmp_path) as directory:
        (directory / "inner").touch()
        assert directory.name.startswith(durable.NEW)
        durable.publish(directory, tmp_path / "done")
    with pytest.raises(ZeroDivisionError), durable.new_directory(tmp_path) as directory:
        (directory / "inner").touch()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_removal_is_idempotent_and_swept_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thing" / "inner").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_: None)  # killed before it
        durable.remove(tmp_path / "thing")
    assert not (tmp_path / "thing").exists()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".new-file").touch()
    (tmp_path / ".new-link").symlink_to(tmp_path)
    (tmp_path / "kept").mkdir()
    durable.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    durable.remove(tmp_path / "kept")
    durable.remove(tmp_path / "kept")
