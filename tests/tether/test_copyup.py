"""Filling an empty volume from the image's content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tether.copyup import copy_up

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners and makes nodes")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    directory = tmp_path / "image"
    directory.mkdir()
    return directory


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    (directory / "data").mkdir(parents=True)
    (directory / "lost+found").mkdir()
    return directory


@pytest.fixture
def fds(image: Path, volume: Path) -> Iterator[tuple[int, int]]:
    pair = (os.open(image, os.O_RDONLY), os.open(volume, os.O_RDONLY))
    yield pair
    for fd in pair:
        os.close(fd)


@needs_root
def test_everything_is_taken_over(image: Path, volume: Path, fds: tuple[int, int]) -> None:
    (image / "file").write_bytes(b"content")
    (image / "file").chmod(0o4751)
    os.chown(image / "file", 12, 34)
    os.setxattr(image / "file", "user.note", b"kept")
    os.chmod(image / "file", 0o4751)
    os.utime(image / "file", ns=(1_000_000_001, 2_000_000_002))
    os.link(image / "file", image / "hard")
    (image / "link").symlink_to("/etc/passwd")
    (image / "sub/deep").mkdir(parents=True)
    (image / "sub/deep").chmod(0o1700)
    os.link(image / "file", image / "sub/deep/hard")
    os.mkfifo(image / "fifo")
    os.mknod(image / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    image.chmod(0o2750)
    os.chown(image, 1000, 1001)
    os.chmod(image, 0o2750)

    copy_up(*fds)

    data = volume / "data"
    status = (data / "file").stat()
    assert (data / "file").read_bytes() == b"content"
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o4751, 12, 34)
    assert status.st_mtime_ns == 2_000_000_002
    assert os.getxattr(data / "file", "user.note") == b"kept"
    assert (data / "hard").stat().st_ino == (data / "sub/deep/hard").stat().st_ino == status.st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert (data / "sub/deep").stat().st_mode & 0o7777 == 0o1700
    assert stat.S_ISFIFO((data / "fifo").lstat().st_mode)
    assert (data / "null").lstat().st_rdev == os.makedev(1, 3)
    top = data.stat()
    assert (top.st_mode & 0o7777, top.st_uid, top.st_gid) == (0o2750, 1000, 1001)
    assert sorted(os.listdir(volume)) == ["data", "lost+found"]


def test_holes_stay_holes(image: Path, volume: Path, fds: tuple[int, int]) -> None:
    with (image / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
        file.truncate(16 << 20)
    copy_up(*fds)
    status = (volume / "data/sparse").stat()
    assert status.st_size == 16 << 20
    assert status.st_blocks * 512 < 1 << 20
    assert (volume / "data/sparse").read_bytes() == (image / "sparse").read_bytes()


def test_a_volume_that_holds_something_is_left_alone(image: Path, volume: Path, fds: tuple[int, int]) -> None:
    (image / "new").touch()
    (volume / "data/old").touch()
    copy_up(*fds)
    assert os.listdir(volume / "data") == ["old"]


def test_a_copy_that_was_cut_off_is_begun_anew(image: Path, volume: Path, fds: tuple[int, int]) -> None:
    (image / "file").write_bytes(b"whole")
    (volume / ".copy-up/sub").mkdir(parents=True)
    (volume / ".copy-up/file").write_bytes(b"ha")
    copy_up(*fds)
    assert (volume / "data/file").read_bytes() == b"whole"
    assert os.listdir(volume / "data") == ["file"]
    assert not (volume / ".copy-up").exists()


def test_killed_before_the_rename_the_volume_is_still_empty(
    image: Path, volume: Path, fds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (image / "file").write_bytes(b"whole")
    with monkeypatch.context() as patch:
        patch.setattr("tether.copyup.os.rename", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            copy_up(*fds)
    assert os.listdir(volume / "data") == []
    copy_up(*fds)
    assert os.listdir(volume / "data") == ["file"]


def test_a_data_directory_that_is_a_link_is_not_followed(
    image: Path, volume: Path, fds: tuple[int, int]
) -> None:
    (volume / "data").rmdir()
    (volume / "data").symlink_to(image)
    with pytest.raises(NotADirectoryError):
        copy_up(*fds)
