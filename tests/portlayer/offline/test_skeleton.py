"""Archives come back byte for byte from the unpacked tree and the skeleton."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archive
from portlayer.offline.skeleton import Recorder, SkeletonError, replay
from tests.archive.support import root

BIG = 3000


def unpacked(top: Path, data: bytes, sizes: list[int]) -> Path:
    """Unpack below ``top``/tree with a recorder, fed in pieces of the given sizes; where the skeleton is."""
    tree = top / "tree"
    tree.mkdir()
    with root(tree) as fd:
        recorder = Recorder(fd, str(top / "skeleton"), str(top / "replaced"))
        with archive.Unpacker(fd, options=archive.UnpackOptions(layer=True)) as unpacker:
            position = turn = 0
            while position < len(data):
                size = sizes[turn % len(sizes)]
                for piece in recorder.feed(data[position : position + size]):
                    unpacker.feed(piece)
                position += size
                turn += 1
            unpacker.finish()
        assert recorder.finish() == len(data)
    return tree


def again(top: Path) -> bytes:
    with root(top / "tree") as fd:
        return b"".join(replay(fd, str(top / "skeleton"), str(top / "replaced")))


def made(*entries: tuple[str, object], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Entries are (name, bytes: a file | str: what a link points to | None: a directory | ("hard", name))."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as out:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            data = b""
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            elif isinstance(content, tuple):
                info.type, info.linkname = tarfile.LNKTYPE, content[1]
            else:
                assert isinstance(content, bytes)
                data, info.size = content, len(content)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("sizes", [[1 << 20], [512], [513], [7, 1000]])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_layer_comes_back(tmp_path: Path, sizes: list[int], form: int) -> None:
    data = made(
        ("d", None),
        ("d/small", b"x"),
        ("d/big", os.urandom(BIG)),
        ("d/name" + "n" * 95, os.urandom(BIG)),
        ("d/link", "big"),
        ("d/hard", ("hard", "d/big")),
        ("d/.wh.gone", b""),
        ("d/.wh.odd", os.urandom(BIG)),
        ("./d//../d/other", os.urandom(BIG)),
        form=form,
    )
    data += os.urandom(100) + bytes(924)  # what stands behind the end counts for the digest
    unpacked(tmp_path, data, sizes)
    assert again(tmp_path) == data
    assert (tmp_path / "skeleton").stat().st_size < 4 * BIG  # .wh.odd and what is random between
    assert not (tmp_path / "replaced").exists()


@pytest.mark.parametrize("sizes", [[1 << 20], [512], [100]])
@pytest.mark.parametrize(
    "later",
    [
        [("d/a", b"n" * BIG)],
        [("d/a", b"")],
        [("d/a", "elsewhere")],
        [("d/a", None), ("d/a/b", b"n" * BIG)],
        [("d", "e"), ("e", None)],
        [("d", b"n" * BIG)],
        [("d/a", ("hard", "d/c"))],
    ],
    ids=str,
)
def test_files_that_a_later_entry_replaces(tmp_path: Path, later: list, sizes: list[int]) -> None:
    data = made(("d", None), ("d/a", b"a" * BIG), ("d/c", b"c" * BIG), *later)
    unpacked(tmp_path, data, sizes)
    assert again(tmp_path) == data


def test_sparse_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(1 << 20)
        file.write(b"end" * 1000)
    with root(tmp_path) as fd:
        data = b"".join(archive.pack(fd, b"source"))
    assert len(data) < 1 << 17
    unpacked(tmp_path, data, [5000])
    assert again(tmp_path) == data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    entries=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "a/a", "a/b", "a/b/c", "b/c", "a/.wh.b", ".wh.a"]),
            st.one_of(st.none(), st.integers(0, 4), st.sampled_from(["a", "nowhere"])),
        ),
        max_size=10,
    ),
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
)
def test_any_archive_that_unpacks_comes_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list, sizes: list[int]
) -> None:
    top = tmp_path_factory.mktemp("layer")
    filled = [
        (name, bytes([kind + 65]) * (kind * 700) if isinstance(kind, int) else kind) for name, kind in entries
    ]
    data = made(*filled)
    linked = {name for name, kind in filled if isinstance(kind, str)}
    try:
        unpacked(top, data, sizes)
    except archive.ArchiveError:
        return
    if any(name.startswith(f"{link}/") for name, _ in filled for link in linked):
        return  # a name by way of a link: the documented exception
    assert again(top) == data


def test_damage_is_noticed(tmp_path: Path) -> None:
    data = made(("a", b"a" * BIG))
    tree = unpacked(tmp_path, data, [1 << 20])
    whole = (tmp_path / "skeleton").read_bytes()
    (tmp_path / "skeleton").write_bytes(whole[:-9])
    with pytest.raises(SkeletonError):
        again(tmp_path)
    (tmp_path / "skeleton").write_bytes(whole)
    (tree / "a").write_bytes(b"short")
    with pytest.raises(SkeletonError, match="is not the file"):
        again(tmp_path)
    (tree / "a").unlink()
    with pytest.raises(SkeletonError, match="cannot be read"):
        again(tmp_path)
