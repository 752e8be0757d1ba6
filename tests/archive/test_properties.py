"""Any tree survives; no bytes whatsoever make the unpacker leave its root or fail in an unnamed way."""

import contextlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archive
from archive.decoder import Decoder
from archive.members import BLOCK, Member, encode_header, padding
from tests.archive.support import pack, root, snapshot, unpack

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IS_ROOT = os.geteuid() == 0

NAMES = st.binary(min_size=1, max_size=120).filter(
    lambda name: not set(name) & {0, 47} and name not in (b".", b"..")
)
TIMES = st.integers(-(1 << 31) * 10**9, (1 << 33) * 10**9)
IDS = (
    st.one_of(st.integers(0, 2000), st.integers(2_000_000, 0xFFFFFFFE)) if IS_ROOT else st.just(os.geteuid())
)
CONTENT = st.one_of(
    st.binary(max_size=2000),
    st.lists(
        st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=50)), max_size=4
    ),  # with holes
)
NODES = st.one_of(
    st.tuples(st.just("file"), CONTENT),
    st.tuples(st.just("link"), NAMES),
    st.tuples(st.just("pipe"), st.none()),
    st.tuples(st.just("again"), st.integers(0, 20)),
)
METADATA = st.tuples(
    st.integers(0, 0o7777),
    IDS,
    IDS,
    TIMES,
    st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda key: not set(key) & {0, 61}),
        st.binary(max_size=300),
        max_size=2,
    ),
)
TREES = st.recursive(
    st.dictionaries(NAMES, st.tuples(NODES, METADATA), max_size=6),
    lambda inner: st.dictionaries(NAMES, st.tuples(st.tuples(st.just("dir"), inner), METADATA), max_size=4),
    max_leaves=4,
)


def build(path: bytes, tree: dict, files: list[bytes]) -> None:
    for name, ((kind, value), metadata) in tree.items():
        full = path + b"/" + name
        if kind == "dir":
            os.mkdir(full)
            build(full, value, files)
        elif kind == "file":
            with open(full, "wb") as file:
                for offset, data in [(0, value)] if isinstance(value, bytes) else value:
                    file.seek(offset)
                    file.write(data)
            files.append(full)
        elif kind == "link":
            os.symlink(value, full)
        elif kind == "pipe":
            os.mkfifo(full)
        elif files:
            os.link(files[value % len(files)], full)
            continue
        else:
            continue
        mode, uid, gid, mtime, xattrs = metadata
        os.chown(full, uid, gid, follow_symlinks=False)
        if kind != "link":
            os.chmod(full, mode if IS_ROOT else mode | 0o700)
        if kind in ("dir", "file"):
            for key, content in xattrs.items():
                os.setxattr(full, b"user." + key, content)
        os.utime(full, ns=(mtime, mtime), follow_symlinks=False)


@contextmanager
def two_directories() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        yield Path(one), Path(two)


@SETTINGS
@given(tree=TREES, step=st.integers(1, 5000))
def test_any_tree_survives(tree: dict, step: int) -> None:
    with two_directories() as (source, target):
        build(os.fsencode(source), tree, [])
        before = snapshot(source)
        data = pack(source, b"/")
        with root(target) as fd, archive.Unpacker(fd, options=archive.UnpackOptions(layer=False)) as unpacker:
            for start in range(0, len(data), step):
                unpacker.feed(data[start : start + step])
            unpacker.finish()
        after = snapshot(target)
        for seen in (before, after):
            seen.pop(b".", None)
        assert after == before


PATHS = st.one_of(
    st.sampled_from(
        [
            b"a",
            b"b",
            b"a/b",
            b"a/b/c",
            b"..",
            b"../x",
            b"a/..",
            b"/",
            b".",
            b"./",
            b"/a",
            b"a/../../x",
            b"up/x",
            b".wh.a",
            b"a/.wh..wh..opq",
            b".wh..",
        ]
    ),
    NAMES,
)
MEMBERS = st.builds(
    lambda name, kind, link, mode, size, real: (name, kind, link, mode, size, real),
    PATHS,
    st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6"]),
    st.one_of(PATHS, st.sampled_from([b"/", b"../../../..", b"/proc/self/root", b"/dev"])),
    st.integers(0, 0o7777),
    st.integers(0, 600),
    st.integers(0, 1 << 40),
)


@SETTINGS
@given(members=st.lists(MEMBERS, max_size=12), layer=st.booleans(), forbid=st.booleans())
def test_no_sequence_of_members_leaves_the_root(members: list, layer: bool, forbid: bool) -> None:
    data = b""
    for name, kind, link, mode, size, _ in members:
        member = Member(
            name=name,
            kind=kind,
            link=link,
            mode=mode,
            uid=os.geteuid(),
            gid=os.getegid(),
            size=size if kind == b"0" else 0,
            major=1,
            minor=3,
        )
        data += encode_header(member) + b"x" * member.size + bytes(padding(member.size))
    with tempfile.TemporaryDirectory() as directory:
        outside = Path(directory)
        inside = outside / "one" / "root"
        (inside / "start").mkdir(parents=True)
        (outside / "x").write_bytes(b"canary")
        (outside / "one" / "x").write_bytes(b"canary")
        before = {
            path: (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_mode)
            for path in (outside, outside / "x", outside / "one", outside / "one" / "x")
        }
        try:
            unpack(inside, data, b"/start", layer=layer, no_overwrite_dir_non_dir=forbid)
        except archive.ArchiveError:
            pass
        except PermissionError:
            assert not IS_ROOT
        assert {
            path: (path.lstat().st_ino, path.lstat().st_mtime_ns, path.lstat().st_mode) for path in before
        } == before
        assert (outside / "x").read_bytes() == (outside / "one" / "x").read_bytes() == b"canary"
        for parent, _, _ in os.walk(directory):
            os.chmod(parent, 0o700)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=3000), cut=st.integers(0, 3000))
def test_any_bytes_decode_or_are_refused(data: bytes, cut: int) -> None:
    decoder = Decoder()
    with contextlib.suppress(archive.ArchiveError):
        for piece in (data[:cut], data[cut:]):
            list(decoder.feed(piece))
        decoder.finish()


def valid_archive() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        (path / "dir").mkdir()
        (path / "dir" / ("n" * 150)).write_bytes(b"content" * 100)
        (path / "link").symlink_to("t" * 120)
        with (path / "holes").open("wb") as file:
            file.seek(200_000)
            file.write(b"x")
        os.setxattr(path / "dir", "user.a", b"b")
        return pack(path, b"/")


VALID = valid_archive()


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(VALID) - 1), value=st.integers(0, 255), fix=st.booleans())
def test_a_changed_byte_decodes_or_is_refused(position: int, value: int, fix: bool) -> None:
    data = bytearray(VALID)
    data[position] = value
    if fix:  # a hostile sender repairs the checksum
        start = position - position % BLOCK
        block = data[start : start + BLOCK]
        total = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
        data[start + 148 : start + 156] = b"%06o\0 " % total
    with tempfile.TemporaryDirectory() as directory:
        try:
            unpack(Path(directory), bytes(data))
        except archive.ArchiveError:
            pass
        except PermissionError:
            assert not IS_ROOT
        for parent, _, _ in os.walk(directory):
            os.chmod(parent, 0o700)


@SETTINGS
@given(
    name=st.one_of(NAMES, st.binary(min_size=1, max_size=400).filter(lambda name: 0 not in name)),
    kind=st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"6"]),
    link=st.binary(max_size=300).filter(lambda name: 0 not in name),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 0xFFFFFFFE),
    gid=st.integers(0, 0xFFFFFFFE),
    mtime=st.integers(-(1 << 62), 1 << 62),
    major=st.integers(0, 4095),
    minor=st.integers(0, (1 << 20) - 1),
    xattrs=st.dictionaries(
        st.binary(min_size=1, max_size=30).filter(lambda key: not set(key) & {0, 61}),
        st.binary(max_size=200),
        max_size=3,
    ),
)
def test_headers_survive_and_pythons_tarfile_agrees(
    name: bytes, kind: bytes, link: bytes, xattrs: dict[bytes, bytes], **fields: int
) -> None:
    mtime = fields.pop("mtime")
    member = Member(name=name, kind=kind, link=link, mtime_ns=mtime, **fields)
    if kind not in (b"3", b"4"):
        member.major = member.minor = 0
    member.xattrs = xattrs
    header = encode_header(member)
    (decoded,) = Decoder().feed(header + bytes(2 * BLOCK))
    assert isinstance(decoded, Member)
    for field in Member.__slots__:
        assert getattr(decoded, field) == getattr(member, field), field
    with tarfile.open(fileobj=io.BytesIO(header + bytes(2 * BLOCK)), errors="surrogateescape") as file:
        (info,) = file.getmembers()
    assert os.fsencode(info.name).rstrip(b"/") == name.rstrip(b"/")
    assert (info.uid, info.gid, info.mode) == (member.uid, member.gid, member.mode)
    assert stat.S_IMODE(info.mode) == info.mode
