"""Deletions in layers, as the OCI image specification describes them."""

import tarfile
from pathlib import Path

import pytest

from archive import ArchiveError
from tests.archive.support import entry, tar, unpack


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """What the layers below left."""
    unpack(
        tmp_path,
        tar(
            entry("dir", tarfile.DIRTYPE),
            (entry("dir/old"), b"old"),
            entry("dir/sub", tarfile.DIRTYPE),
            (entry("dir/sub/old"), b"old"),
            (entry("file"), b"old"),
            entry("link", tarfile.SYMTYPE, linkname="dir"),
        ),
    )
    return tmp_path


def names(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


ALL = ["dir", "dir/old", "dir/sub", "dir/sub/old", "file", "link"]


@pytest.mark.parametrize(
    ("marker", "hidden"),
    [
        ("dir/.wh.old", ["dir/old"]),
        ("dir/.wh.sub", ["dir/sub", "dir/sub/old"]),
        (".wh.file", ["file"]),
        (".wh.link", ["link"]),
        (".wh.missing", []),
        ("missing/.wh.x", []),
        ("missing/.wh..wh..opq", []),
        ("dir/.wh..wh..opq", ["dir/old", "dir/sub", "dir/sub/old"]),
        ("link/.wh.old", ["dir/old"]),
        ("dir/.wh..wh.plnk", []),
    ],
)
def test_marker_hides(lower: Path, marker: str, hidden: list[str]) -> None:
    result = unpack(lower, tar(entry(marker)), layer=True)
    assert names(lower) == [name for name in ALL if name not in hidden]
    assert result.members == 1


@pytest.mark.parametrize("first", ["marker", "content"])
def test_opaque_directory_keeps_what_the_layer_brings(lower: Path, first: str) -> None:
    marker = [entry("dir/.wh..wh..opq")]
    content = [
        entry("dir/sub", tarfile.DIRTYPE),
        (entry("dir/sub/new"), b"new"),
        (entry("dir/other/deep"), b"new"),
    ]
    parts = marker + content if first == "marker" else content + marker
    unpack(lower, tar(*parts), layer=True)
    assert names(lower) == [
        "dir", "dir/other", "dir/other/deep", "dir/sub", "dir/sub/new", "file", "link",
    ]  # fmt: skip


@pytest.mark.parametrize("first", ["marker", "content"])
def test_whiteout_and_new_entry_of_the_same_name(lower: Path, first: str) -> None:
    marker = [entry("dir/.wh.sub")]
    content = [entry("dir/sub", tarfile.DIRTYPE), (entry("dir/sub/new"), b"new")]
    parts = marker + content if first == "marker" else content + marker
    unpack(lower, tar(*parts), layer=True)
    assert names(lower) == ["dir", "dir/old", "dir/sub", "dir/sub/new", "file", "link"]


def test_opaque_root(lower: Path) -> None:
    unpack(lower, tar((entry("new"), b"x"), entry(".wh..wh..opq")), layer=True)
    assert names(lower) == ["new"]


def test_opaque_directory_reached_by_a_link_knows_its_own(lower: Path) -> None:
    unpack(lower, tar((entry("link/new"), b"x"), entry("dir/.wh..wh..opq")), layer=True)
    assert names(lower) == ["dir", "dir/new", "file", "link"]


def test_a_whiteout_of_a_link_leaves_its_target(lower: Path) -> None:
    unpack(lower, tar(entry(".wh.link")), layer=True)
    assert "dir/old" in names(lower)


def test_a_file_after_the_whiteout_of_its_kept_parent_goes_to_the_new_place(lower: Path) -> None:
    """The parent's descriptor is kept between entries: it must not outlive the directory."""
    parts = [(entry("a/b/one"), b"1"), (entry("c"), b"")]
    unpack(lower, tar(*parts))
    unpack(lower, tar(entry("a/.wh.x"), entry(".wh.a"), (entry("a/b/two"), b"2")), layer=True)
    assert [name for name in names(lower) if name.startswith("a")] == ["a", "a/b", "a/b/two"]


@pytest.mark.parametrize("marker", [".wh.", "dir/.wh..", "dir/.wh...", ".wh.."])
def test_markers_that_name_nothing_are_refused(lower: Path, marker: str) -> None:
    with pytest.raises(ArchiveError, match="malformed whiteout"):
        unpack(lower, tar(entry(marker)), layer=True)
    assert names(lower) == ALL


def test_docker_cp_takes_such_names_literally(lower: Path) -> None:
    unpack(lower, tar((entry(".wh.file"), b"x")))
    assert names(lower) == [".wh.file", *ALL]
