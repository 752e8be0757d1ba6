"""What is packed and unpacked again is what was there."""

import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

import archive
from tests.archive.support import pack, root, snapshot, unpack

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes devices and other people's files")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def fill(path: Path) -> None:
    (path / "dir" / "deep").mkdir(parents=True)
    (path / "dir" / "file").write_bytes(b"content")
    (path / "dir" / "empty").touch()
    (path / "dir" / "big").write_bytes(os.urandom(3_000_000))
    os.link(path / "dir" / "file", path / "dir" / "deep" / "second name")
    (path / "link").symlink_to("dir/file")
    os.link(path / "link", path / "link2", follow_symlinks=False)
    (path / ("long" * 40)).mkdir()
    (path / ("long" * 40) / ("name" * 50)).write_bytes(b"far away")
    (path / "to far").symlink_to("x/" * 150)
    with open(os.fsencode(path) + b"/not utf-8 \xff\xfe", "wb") as file:
        file.write(b"odd")
    with open(os.fsencode(path) + b"/new\nline " + b"\xe9" * 120, "wb") as file:
        file.write(b"odd and long")
    os.setxattr(path / "dir" / "file", "user.note", b"\0binary=\n\xff")
    os.setxattr(path / "dir", "user.note", b"a directory's")
    with (path / "holes").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(9_000_001)
    (path / "only a hole").touch()
    os.truncate(path / "only a hole", 1 << 33)
    os.utime(path / "dir" / "file", ns=(0, 1_234_567_890_123_456_789))
    os.utime(path / "dir" / "empty", ns=(0, -5_000_000_001))
    (path / "dir" / "deep").chmod(0o1777)
    os.utime(path / "dir", ns=(0, 42))


def test_everything_survives(source: Path, target: Path) -> None:
    fill(source)
    os.truncate(source / "only a hole", 1 << 20)  # small enough for the comparison
    result = unpack(target, pack(source, b"/"))
    os.utime(target, ns=(0, source.stat().st_mtime_ns))  # docker cp leaves the top alone
    assert snapshot(target) == snapshot(source)
    assert result.skipped_xattrs == 0
    assert (target / "holes").stat().st_blocks * 512 < 1_000_000
    assert (target / "dir" / "file").stat().st_ino == (target / "dir" / "deep" / "second name").stat().st_ino


@needs_root
def test_owners_devices_and_modes_survive(source: Path, target: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))
    os.mkfifo(source / "pipe", 0o622)
    (source / "setuid").write_bytes(b"x")
    os.chown(source / "setuid", 3_000_000, 4_000_000_000)
    (source / "setuid").chmod(0o6755)
    (source / "link").symlink_to("nowhere")
    os.chown(source / "link", 7, 8, follow_symlinks=False)
    os.setxattr(source / "link", "trusted.note", b"on a link", follow_symlinks=False)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(source / "setuid", "security.capability", capability)
    unpack(target, pack(source, b"/."))
    os.utime(target, ns=(0, source.stat().st_mtime_ns))
    assert snapshot(target) == snapshot(source)


def test_other_tools_read_what_we_write(source: Path) -> None:
    fill(source)
    with tarfile.open(fileobj=io.BytesIO(pack(source, b"/"))) as file:
        names = {member.name: member for member in file.getmembers()}
        assert names["/dir/file"].mtime == pytest.approx(1234567890.1234567)
        assert names["/dir/deep/second name"].linkname or names["/dir/file"].linkname
        assert names["/only a hole"].size == 1 << 33
        extracted = file.extractfile("/holes")
        assert extracted is not None
        assert extracted.read() == (source / "holes").read_bytes()
        assert os.fsencode("/not utf-8 \udcff\udcfe") in map(os.fsencode, names)


def test_same_tree_gives_same_bytes(source: Path) -> None:
    fill(source)
    assert pack(source, b"/") == pack(source, b"/")


@pytest.mark.parametrize("step", [1, 7, 511, 513, 100_000])
def test_chunks_of_any_size(source: Path, target: Path, step: int) -> None:
    (source / "a").mkdir()
    (source / "a" / ("n" * 200)).write_bytes(os.urandom(5000))
    with (source / "holes").open("wb") as file:
        file.seek(100_000)
        file.write(b"x")
    os.setxattr(source / "holes", "user.x", b"y" * 600)
    data = pack(source, b"/")
    with root(target) as fd, archive.Unpacker(fd) as unpacker:
        for start in range(0, len(data), step):
            unpacker.feed(data[start : start + step])
        unpacker.finish()
    os.utime(target, ns=(0, source.stat().st_mtime_ns))
    assert snapshot(target) == snapshot(source)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/dir", ["dir/", "dir/file"]),
        (b"dir/", ["dir/", "dir/file"]),
        (b"/dir/.", ["./", "./file"]),
        (b"/dir/file", ["file"]),
        (b"/other/../dir/file", ["file"]),
        (b"/link", ["link"]),
        (b"/link/", ["link/", "link/file"]),
        (b"/link/file", ["file"]),
        (b"/", ["/", "/dir/", "/dir/file", "/link"]),
    ],
)
def test_top_entry_is_named_as_docker_cp_wants(source: Path, path: bytes, expected: list[str]) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").touch()
    (source / "link").symlink_to("dir")
    with tarfile.open(fileobj=io.BytesIO(pack(source, path))) as file:
        names = [member.name + ("/" if member.isdir() and member.name != "/" else "") for member in file]
    assert names == expected


def test_name_of_top_entry_can_be_chosen(source: Path) -> None:
    (source / "dir").mkdir()
    (source / "dir" / "file").touch()
    with tarfile.open(fileobj=io.BytesIO(pack(source, b"dir", name=b"new/name"))) as file:
        assert file.getnames() == ["new/name", "new/name/file"]


def test_sockets_are_left_out_but_not_silently_when_asked_for(source: Path) -> None:
    (source / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as sock, root(source) as fd:
        sock.bind(f"/proc/self/fd/{fd}/d/s")
        with tarfile.open(fileobj=io.BytesIO(pack(source, b"d"))) as file:
            assert file.getnames() == ["d"]
        with pytest.raises(archive.ArchiveError, match="sockets cannot be archived"):
            pack(source, b"d/s")


def test_missing_paths_are_noticed_at_the_call(source: Path) -> None:
    with root(source) as fd:
        with pytest.raises(FileNotFoundError):
            archive.pack(fd, b"/missing")
        (source / "file").touch()
        with pytest.raises(NotADirectoryError):
            archive.pack(fd, b"/file/")


def test_a_file_that_shrinks_is_an_error_not_a_shorter_archive(source: Path) -> None:
    (source / "file").write_bytes(bytes(3 << 20))
    with root(source) as fd:
        chunks = archive.pack(fd, b"file")
        next(chunks)
        os.truncate(source / "file", 1 << 20)
        with pytest.raises(archive.ArchiveError, match="shrank"):
            list(chunks)


def test_abandoned_iterator_holds_no_descriptor(source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_bytes(bytes(3 << 20))
    with root(source) as fd:
        before = os.listdir("/proc/self/fd")
        chunks = archive.pack(fd, b"/")
        next(chunks)
        chunks.close()
        assert os.listdir("/proc/self/fd") == before


def test_directories_of_excluded_devices_are_packed_empty(source: Path) -> None:
    (source / "d").mkdir()
    (source / "d" / "file").touch()
    with tarfile.open(fileobj=io.BytesIO(pack(source, b"d", empty_devices=[source.stat().st_dev]))) as file:
        assert file.getnames() == ["d"]
