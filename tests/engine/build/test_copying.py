"""Trees out of tars, and the archives that COPY and ADD make of them."""

import contextlib
import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.build.context import Tree
from engine.build.copying import CopyPlan, Found, choose, destination, digest, expand_archive, write
from engine.http import ApiError, BadRequest
from engine.images.spool import Spool, SpoolFile


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, 1 << 30)


def spooled(spool: Spool, data: bytes) -> SpoolFile:
    file = spool.file()
    file.append(data)
    return file


def tar(*entries: tuple[str, object], **fields: object) -> bytes:
    """(name, bytes | None: directory | "→target": link | "=target": hard link)"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(info, key, value)
            data = b""
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type = tarfile.SYMTYPE if content[0] == "→" else tarfile.LNKTYPE
                info.linkname = content[1:]
            else:
                assert isinstance(content, bytes)
                data, info.size = content, len(content)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


CONTEXT = (
    ("a", b"1"),
    ("b.txt", b"22"),
    ("d/x", b"x"),
    ("d/sub/y", b"y"),
    ("d/hard", "=a"),
    ("link", "→d"),
    ("up", "→../../a"),
    ("absolute", "→/d/sub"),
    ("loop", "→loop"),
)


def tree(spool: Spool, *entries: tuple[str, object]) -> Tree:
    return Tree(spooled(spool, tar(*(entries or CONTEXT))))


def copied(spool: Spool, found: list[Found], target: str, **fields: object) -> dict[str, tarfile.TarInfo]:
    values: dict = {"into": True, "missing": (), "owner": (0, 0), "chown": False, "mode": None, **fields}
    out = spool.file()
    write(CopyPlan(found=found, target=target, **values), out)
    with tarfile.open(fileobj=io.BytesIO(out.read(0, out.size))) as file:
        return {info.name: info for info in file}


def test_paths_are_followed_inside_the_tree(spool: Spool) -> None:
    found = tree(spool)
    for path, real in (
        ("link/x", "d/x"),
        ("up", "a"),
        ("absolute/y", "d/sub/y"),
        ("../../a", "a"),
        ("/", ""),
    ):
        assert found.resolve(path) == real
    for path in ("loop", "nothing", "a/b", "link/nothing"):
        with pytest.raises(KeyError):
            found.resolve(path)
    assert found.read("up", 100) == b"1"
    assert found.read("d/hard", 100) == b"1"
    assert found.read("d", 100) is None


def test_files_and_directories(spool: Spool) -> None:
    found = tree(spool)
    assert list(copied(spool, choose(found, ["a", "b.txt"], word="COPY"), "/to")) == ["to/a", "to/b.txt"]
    assert list(copied(spool, choose(found, ["link"], word="COPY"), "/to")) == [
        "to/hard",
        "to/sub",
        "to/sub/y",
        "to/x",
    ]
    assert list(copied(spool, choose(found, ["a"], word="COPY"), "/to", into=False)) == ["to"]
    assert "to/d/sub/y" in copied(spool, choose(found, ["."], word="COPY"), "/to")
    assert list(copied(spool, choose(found, ["[ab]*"], word="COPY"), "/")) == [
        "a",
        "y",
        "b.txt",
    ]  # absolute is a directory


def test_owners_and_modes(spool: Spool) -> None:
    found = Tree(spooled(spool, tar(("a", b"1"), uid=5, gid=6, mode=0o4711)))
    chosen = choose(found, ["a"], word="COPY")
    info = copied(spool, chosen, "/")["a"]
    assert (info.uid, info.gid, info.mode) == (0, 0, 0o4711)
    info = copied(spool, chosen, "/", owner=None)["a"]
    assert (info.uid, info.gid) == (5, 6)
    info = copied(spool, chosen, "/", owner=(7, 8), chown=True, mode=0o600, missing=["/x", "/x/y"])
    assert (info["a"].uid, info["a"].mode, info["x/y"].gid, info["x/y"].mode) == (7, 0o600, 8, 0o755)


def test_what_is_not_there(spool: Spool) -> None:
    found = tree(spool)
    with pytest.raises(
        ApiError,
        match=r"COPY failed: file not found in build context or excluded by .dockerignore: stat nope:",
    ):
        choose(found, ["nope"], word="COPY")
    with pytest.raises(ApiError, match="ADD failed: no source files were specified"):
        choose(found, ["n*"], word="ADD")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_add_unpacks_archives(spool: Spool, pack) -> None:
    inner = tar(("in/side", b"x"), uid=9)
    found = tree(spool, ("it", pack(inner)), ("plain", b"no archive"), ("odd.gz", gzip.compress(b"text")))
    out = spool.file()
    item = expand_archive(choose(found, ["it"], word="ADD")[0], out)
    names = copied(spool, [item], "/to")
    assert (list(names), names["to/in/side"].uid) == (["to/in", "to/in/side"], 9)
    assert copied(spool, [item], "/to", owner=(1, 1), chown=True)["to/in/side"].uid == 1
    for name in ("plain", "odd.gz"):
        whole = choose(found, [name], word="ADD")[0]
        assert expand_archive(whole, spool.file()) == whole


def test_checksums(spool: Spool) -> None:
    def of(*entries: tuple[str, object], source: str = ".", **fields: object) -> str:
        return digest(choose(Tree(spooled(spool, tar(*entries, **fields))), [source], word="COPY"))

    same = of(("a", b"1"), ("d/b", b"2"))
    assert same.startswith("dir:")
    assert same == of(("a", b"1"), ("d/b", b"2"), mtime=77)
    others = [
        of(("a", b"1"), ("d/b", b"3")),
        of(("a", b"1"), ("d/c", b"2")),
        of(("a", b"1"), ("d/b", b"2"), uid=1),
    ]
    assert len({same, *others}) == 4
    assert of(("a", b"1"), source="a").startswith("file:")
    assert of(("a", b"1"), ("b", b"1"), source="?").startswith("multi:")


@pytest.mark.parametrize(
    ("directory", "wanted", "expected"),
    [
        ("", "x", ("/x", False)),
        ("/w", "x/", ("/w/x", True)),
        ("/w", ".", ("/w", True)),
        ("/w", "/abs", ("/abs", False)),
        ("/w", "../../x", ("/x", False)),
        ("/w", "//x/./", ("/x", True)),
    ],
)
def test_destinations(directory: str, wanted: str, expected: tuple[str, bool]) -> None:
    assert destination(directory, wanted, several=False, word="COPY") == expected


def test_several_sources_need_a_directory() -> None:
    with pytest.raises(BadRequest, match="When using ADD with more than one source file"):
        destination("/", "x", several=True, word="ADD")


@contextlib.contextmanager
def hostile(spool: Spool, data: bytes) -> Iterator[Tree]:
    with spooled(spool, data) as file:
        yield Tree(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=3000),
    damage=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
)
def test_a_hostile_context_is_refused_or_read(
    spool: Spool, data: bytes, damage: list[tuple[int, int]]
) -> None:
    whole = bytearray(tar(*CONTEXT, ("more", data)))
    for place, value in damage:
        whole[place % len(whole)] = value
    with contextlib.suppress(ApiError), hostile(spool, bytes(whole)) as found:
        digest(choose(found, ["."], word="COPY"))


def test_random_bytes_are_no_context(spool: Spool) -> None:
    with pytest.raises(BadRequest, match="no tar archive"):
        Tree(spooled(spool, os.urandom(5000)))
