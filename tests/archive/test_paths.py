"""Paths inside a root, as Docker resolves them."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from archive import stat_path
from archive.paths import open_directory, real_path
from tests.archive.support import root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "file").write_bytes(b"12345")
    (tmp_path / "abs").symlink_to("/dir")
    (tmp_path / "dir" / "up").symlink_to("../../../../dir/file")
    (tmp_path / "chain").symlink_to("abs/sub")
    (tmp_path / "dangling").symlink_to("/missing/deeper/../x")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "name", "kind", "target"),
    [
        (b"/", b"/", stat.S_IFDIR, b""),
        (b"", b"/", stat.S_IFDIR, b""),
        (b"/../..", b"/", stat.S_IFDIR, b""),
        (b"/.", b"/", stat.S_IFDIR, b""),
        (b"dir", b"dir", stat.S_IFDIR, b""),
        (b"/dir/", b"dir", stat.S_IFDIR, b""),
        (b"/dir/.", b".", stat.S_IFDIR, b""),
        (b"//dir/./sub/../file", b"file", stat.S_IFREG, b""),
        (b"/abs", b"abs", stat.S_IFLNK, b"/dir"),
        (b"/abs/", b"abs", stat.S_IFDIR, b""),
        (b"/abs/file", b"file", stat.S_IFREG, b""),
        (b"/dir/up", b"up", stat.S_IFLNK, b"/dir/file"),
        (b"/chain", b"chain", stat.S_IFLNK, b"/dir/sub"),
        (b"/chain/", b"chain", stat.S_IFDIR, b""),
        (b"/dangling", b"dangling", stat.S_IFLNK, b"/missing/x"),
        (b"/chain/../file", b"file", 0, b""),  # lexically /file, as Docker cleans it
    ],
)
def test_stat(tree: Path, path: bytes, name: bytes, kind: int, target: bytes) -> None:
    with root(tree) as fd:
        if not kind:
            with pytest.raises(FileNotFoundError):
                stat_path(fd, path)
            return
        result = stat_path(fd, path)
    assert (result.name, stat.S_IFMT(result.mode), result.link_target) == (name, kind, target)
    if kind == stat.S_IFREG:
        assert result.size == 5
        assert result.mtime_ns == (tree / "dir" / "file").stat().st_mtime_ns


@pytest.mark.parametrize("path", [b"/dir/file/", b"/dir/file/x", b"/dir/up/x"])
def test_files_are_no_directories(tree: Path, path: bytes) -> None:
    with root(tree) as fd, pytest.raises(NotADirectoryError):
        stat_path(fd, path)


def test_loops_end(tree: Path) -> None:
    with root(tree) as fd:
        for call in (lambda: stat_path(fd, b"/loop/"), lambda: real_path(fd, b"/loop")):
            with pytest.raises(OSError, match="symbolic links") as caught:
                call()
            assert caught.value.errno == errno.ELOOP


def test_a_flood_of_link_text_ends(tree: Path) -> None:
    for number in range(30):
        (tree / f"l{number}").symlink_to(f"l{number + 1}/" + "x/" * 2000)
    with root(tree) as fd, pytest.raises(OSError, match="symbolic links"):
        open_directory(fd, [b"l0"])


def test_missing_directories_are_made_on_request(tree: Path) -> None:
    old = os.umask(0o077)
    try:
        with root(tree) as fd:
            made = open_directory(fd, [b"new", b"abs", b"er"], create=True)
            made.close()
            through = open_directory(fd, [b"dangling", b"in"], create=True)
            through.close()
    finally:
        os.umask(old)
    assert made.names == [b"new", b"abs", b"er"]
    assert stat.S_IMODE((tree / "new" / "abs").stat().st_mode) == 0o755
    assert through.names == [b"missing", b"x", b"in"]


def test_swapping_a_directory_for_a_link_does_not_lead_out(tree: Path) -> None:
    """ ".." walks again from the root by names that were no links: a link there now is refused."""
    outside = tree.parent / f"{tree.name}-outside"
    outside.mkdir()
    with root(tree) as fd:
        directory = open_directory(fd, [b"dir", b"sub"])
        (tree / "dir").rename(tree / "moved")
        (tree / "dir").symlink_to(outside)
        with pytest.raises(NotADirectoryError):
            open_directory(fd, [b"..", b"x"], start=directory)
        directory.close()


def test_nothing_stays_open(tree: Path) -> None:
    with root(tree) as fd:
        before = os.listdir("/proc/self/fd")
        for path in (b"/dir/file", b"/chain/", b"/loop/", b"/dir/file/", b"/missing/x", b"/dangling"):
            with contextlib.suppress(OSError):
                stat_path(fd, path)
        assert os.listdir("/proc/self/fd") == before
