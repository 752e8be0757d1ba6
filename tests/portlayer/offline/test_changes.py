"""Differences between two trees (here ordinary directories: other inodes, so metadata and content decide)."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from portlayer.offline import changes as offline_changes
from portlayer.offline.changes import compare, pack_changes
from tests.archive.support import root, snapshot, unpack


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "dir" / "sub").mkdir(parents=True)
    (lower / "dir" / "file").write_bytes(b"content")
    (lower / "dir" / "sub" / "deep").write_bytes(b"deep")
    (lower / "link").symlink_to("dir")
    os.mkfifo(lower / "pipe")
    shutil.copytree(lower, upper, symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    os.mkfifo(upper / "pipe")
    same_times(lower, upper)
    return lower, upper


def same_times(lower: Path, upper: Path) -> None:
    """Whatever exists in both looks untouched by its times."""
    for path in [upper, *upper.rglob("*")]:
        original = lower / path.relative_to(upper)
        if os.path.lexists(original):
            stamp = original.lstat().st_mtime_ns
            os.utime(path, ns=(stamp, stamp), follow_symlinks=False)


def changes(trees: tuple[Path, Path]) -> list[str]:
    with root(trees[0]) as lower, root(trees[1]) as upper:
        return [f"{kind.decode()} {path.decode()}" for kind, path in compare(lower, upper)]


def test_equal_trees(trees: tuple[Path, Path]) -> None:
    assert changes(trees) == []


def test_equal_length_and_time_but_other_content(trees: tuple[Path, Path]) -> None:
    (trees[1] / "dir" / "file").write_bytes(b"CONTENT")
    same_times(*trees)
    assert changes(trees) == ["C /dir", "C /dir/file"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda top: (top / "dir" / "file").chmod(0o600), ["C /dir", "C /dir/file"]),
        (lambda top: (top / "dir" / "file").write_bytes(b"longer content"), ["C /dir", "C /dir/file"]),
        (lambda top: (top / "dir" / "file").unlink(), ["C /dir", "D /dir/file"]),
        (lambda top: os.setxattr(top / "dir" / "file", "user.a", b"b"), ["C /dir", "C /dir/file"]),
        (lambda top: os.setxattr(top / "dir" / "sub", "user.a", b"b"), ["C /dir", "C /dir/sub"]),
        (lambda top: shutil.rmtree(top / "dir"), ["D /dir"]),
        (lambda top: (top / "new" / "a").mkdir(parents=True), ["A /new", "A /new/a"]),
        (lambda top: relink(top / "link", "elsewhere"), ["C /link"]),
    ],
)
def test_one_change(trees: tuple[Path, Path], change, expected: list[str]) -> None:
    change(trees[1])
    same_times(*trees)
    assert changes(trees) == expected


def test_one_of_many_hard_links_goes_and_the_content_is_read_once(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[bytes] = []
    real = offline_changes._content_differs
    monkeypatch.setattr(
        offline_changes,
        "_content_differs",
        lambda lower, upper, name: reads.append(name) or real(lower, upper, name),
    )
    for top in trees:
        for number in range(5):
            os.link(top / "dir" / "file", top / f"link{number}")
    (trees[1] / "link3").unlink()
    same_times(*trees)
    assert changes(trees) == ["D /link3"]
    assert len(reads) == 2  # deep, and file under all its names


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_touched_file_is_changed(trees: tuple[Path, Path]) -> None:
    os.utime(trees[1] / "dir" / "file", ns=(5, 5))
    assert changes(trees) == ["C /dir", "C /dir/file"]


@pytest.mark.parametrize("first", ["dir", "file"])
def test_a_file_becomes_a_directory_and_the_other_way_round(trees: tuple[Path, Path], first: str) -> None:
    lower, upper = trees if first == "file" else trees[::-1]
    (upper / "link").unlink()
    (upper / "link").mkdir()
    (upper / "link" / "inner").touch()
    same_times(lower, upper)
    expected = ["C /link", "A /link/inner"] if first == "file" else ["C /link"]
    assert changes(trees) == expected


def test_the_packed_difference_rebuilds_the_tree(trees: tuple[Path, Path]) -> None:
    lower, upper = trees
    (upper / "dir" / "file").unlink()
    (upper / "dir" / "sub" / "deep").write_bytes(os.urandom(2_000_000))
    (upper / "added").mkdir()
    (upper / "added" / "one").write_bytes(b"1")
    os.link(upper / "added" / "one", upper / "added" / "two")
    relink(upper / "link", "elsewhere")
    (upper / "odd \udcff").touch()
    upper.chmod(0o700)
    with root(lower) as below, root(upper) as above:
        data = b"".join(pack_changes(below, above, compare(below, above)))
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        assert "dir/.wh.file" in file.getnames()
        assert "pipe" not in file.getnames()
    unpack(lower, data, layer=True)
    assert snapshot(lower) == snapshot(upper)


def test_no_difference_is_an_empty_archive(trees: tuple[Path, Path]) -> None:
    with root(trees[0]) as lower, root(trees[1]) as upper:
        assert b"".join(pack_changes(lower, upper, compare(lower, upper))) == bytes(1024)


def test_nothing_stays_open_when_the_reader_stops(trees: tuple[Path, Path]) -> None:
    (trees[1] / "dir" / "sub" / "deep").unlink()
    with root(trees[0]) as lower, root(trees[1]) as upper:
        before = os.listdir("/proc/self/fd")
        entries = compare(lower, upper)
        next(entries)
        entries.close()
        assert os.listdir("/proc/self/fd") == before
