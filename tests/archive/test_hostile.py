"""Archives that want out, or want too much. Each one is refused by name, and nothing outside changes."""

import io
import os
import tarfile
from pathlib import Path

import pytest

import archive
from archive import ArchiveError, DirectoryConflict, Limits
from tests.archive.support import entry, pack, root, snapshot, tar, unpack


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "sub").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def outside_is_untouched(tmp_path: Path):
    yield
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert {
        name: (tmp_path / "outside" / name).read_bytes() for name in os.listdir(tmp_path / "outside")
    } == {"secret": b"secret"}


LINKS = {
    "absolute": ("/outside", "outside/file"),
    "up": ("../../../../../../outside", "outside/file"),
    "proc": ("/proc/self/root/outside", "proc/self/root/outside/file"),
    "self": (".", "file"),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_in_the_archive_are_resolved_inside(inside: Path, name: str) -> None:
    link, lands = LINKS[name]
    unpack(
        inside,
        tar(entry("evil", tarfile.SYMTYPE, linkname=link), (entry("evil/file"), b"x")),
    )
    assert (inside / lands).read_bytes() == b"x"


def test_links_in_the_root_are_resolved_inside(inside: Path) -> None:
    (inside / "etc").symlink_to(inside.parent / "outside")
    unpack(inside, tar((entry("etc/file"), b"x")))
    assert (inside / str(inside.parent)[1:] / "outside" / "file").read_bytes() == b"x"


def test_absolute_names_are_inside(inside: Path) -> None:
    unpack(inside, tar((entry("/etc/passwd"), b"x"), (entry("a/../b/./c"), b"y")))
    assert (inside / "etc" / "passwd").read_bytes() == b"x"
    assert (inside / "b" / "c").read_bytes() == b"y"


@pytest.mark.parametrize("name", ["../outside/secret", "a/../../outside/secret", "..", "/../x"])
def test_names_that_lead_out_are_refused(inside: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="leads out") as caught:
        unpack(inside, tar((entry(name), b"x")))
    assert caught.value.member == name.encode()


@pytest.mark.parametrize("link", ["../outside/secret", "/../outside/secret"])
def test_hard_links_that_lead_out_are_refused(inside: Path, link: str) -> None:
    with pytest.raises(ArchiveError, match="leads out"):
        unpack(inside, tar(entry("stolen", tarfile.LNKTYPE, linkname=link)))


def test_hard_links_through_symlinks_stay_inside(inside: Path) -> None:
    data = tar(
        entry("way", tarfile.SYMTYPE, linkname="/../outside"),
        entry("stolen", tarfile.LNKTYPE, linkname="way/secret"),
    )
    with pytest.raises((ArchiveError, FileNotFoundError)):
        unpack(inside, data)
    assert not (inside / "stolen").exists()


def test_a_final_link_is_replaced_not_followed(inside: Path) -> None:
    (inside / "file").symlink_to(inside.parent / "outside" / "secret")
    unpack(inside, tar((entry("file"), b"mine")))
    assert (inside / "file").read_bytes() == b"mine"
    assert not (inside / "file").is_symlink()


def test_a_kept_directory_is_not_used_after_it_was_swapped_for_a_link(inside: Path) -> None:
    data = tar(
        (entry("d/one"), b"1"),
        entry("d", tarfile.SYMTYPE, linkname="/sub"),
        (entry("d/two"), b"2"),
    )
    unpack(inside, data)
    assert os.readlink(inside / "d") == "/sub"
    assert (inside / "sub" / "two").read_bytes() == b"2"


def test_link_loops_end(inside: Path) -> None:
    data = tar(
        entry("a", tarfile.SYMTYPE, linkname="b"),
        entry("b", tarfile.SYMTYPE, linkname="a"),
        entry("a/file"),
    )
    with pytest.raises(ArchiveError, match="symbolic links") as caught:
        unpack(inside, data)
    assert caught.value.member == b"a/file"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: tar(entry("x" * 300)), "too long"),
        (lambda: tar(entry("d/" * 600 + "x")), "deeper than 512"),
        (lambda: tar(entry("d/" * 3000 + "x")), "longer than 4096"),
        (lambda: tar(entry("a"), entry("a/b")), "Not a directory"),
        (lambda: tar(entry("a", tarfile.LNKTYPE, linkname="b")), "missing file"),
        (lambda: tar(entry("a", tarfile.LNKTYPE, linkname="sub")), "hard link to a directory"),
        (lambda: tar(entry("a", tarfile.SYMTYPE, linkname="")), "link to nothing"),
        (lambda: tar(entry(".", tarfile.REGTYPE)), "top of the archive"),
        (lambda: tar(entry("a", uid=0xFFFFFFFF)), "out of range"),
        (lambda: tar(entry("a", gid=1 << 40)), "out of range"),
        (lambda: tar(entry("a", tarfile.CHRTYPE, devmajor=5000)), "device number"),
        (lambda: tar(entry("a", b"M")), "type 'M'"),
        (lambda: tar(entry("a", pax_headers={"path": "x\0y"})), "zero byte"),
        (lambda: tar(entry("a", pax_headers={"GNU.sparse.major": "9", "GNU.sparse.minor": "9"})), "sparse"),
        (lambda: tar(entry("a", pax_headers={"comment": "x" * (1 << 20)})), "extended header larger"),
        (
            lambda: tar(entry("a", pax_headers={f"SCHILY.xattr.user.{n}": "" for n in range(300)})),
            "more than 256",
        ),
        (lambda: b"\xff" * 1024, "wrong checksum"),
        (lambda: b"x" * 100, "cut off"),
        (lambda: tar((entry("a"), b"c" * 2000))[:1024], "cut off"),
        (lambda: tar(entry("a"))[:512] + bytes(512) + tar(entry("b")), "lone zero block"),
    ],
)
def test_malformed_archives_are_refused_with_the_reason(inside: Path, make, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        unpack(inside, make())


def test_caps_count(inside: Path) -> None:
    data = tar(*(entry(f"f{n}") for n in range(11)))
    assert unpack(inside, data, limits=Limits(members=11)).members == 11
    with pytest.raises(ArchiveError, match="more than 10 entries"):
        unpack(inside, data, limits=Limits(members=10))
    big = tar((entry("a"), bytes(1000)), (entry("b"), bytes(1000)))
    with pytest.raises(ArchiveError, match="larger than 999 bytes"):
        unpack(inside, big, limits=Limits(file_bytes=999))
    with pytest.raises(ArchiveError, match="content is larger than 1999"):
        unpack(inside, big, limits=Limits(total_bytes=1999))


def test_a_bomb_of_holes_is_refused(inside: Path) -> None:
    info = entry("bomb", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": str(1 << 42)})
    with pytest.raises(ArchiveError, match="out of all proportion"):
        unpack(inside, tar(info))


def test_claimed_sizes_do_not_reserve_anything(inside: Path) -> None:
    header = entry("huge", size=1 << 42).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveError, match="cut off"):
        unpack(inside, header + b"x" * 1000)
    assert (inside / "huge").stat().st_size == 1000


@pytest.mark.parametrize("replace", [False, True])
def test_directories_meet_files(inside: Path, replace: bool) -> None:
    (inside / "sub" / "file").write_bytes(b"old")
    (inside / "plain").write_bytes(b"old")
    over_directory = tar((entry("sub"), b"new"))
    over_file = tar(entry("plain", tarfile.DIRTYPE))
    if replace:
        unpack(inside, over_directory)
        unpack(inside, over_file)
        assert (inside / "sub").read_bytes() == b"new"
        assert (inside / "plain").is_dir()
        return
    before = snapshot(inside)
    with pytest.raises(DirectoryConflict, match="cannot overwrite directory with non-directory"):
        unpack(inside, over_directory, no_overwrite_dir_non_dir=True)
    with pytest.raises(DirectoryConflict, match="cannot overwrite non-directory with directory"):
        unpack(inside, over_file, no_overwrite_dir_non_dir=True)
    assert snapshot(inside) == before


def test_target_must_be_a_directory(inside: Path) -> None:
    (inside / "file").touch()
    with pytest.raises(NotADirectoryError):
        unpack(inside, tar(), b"/file")
    with pytest.raises(FileNotFoundError):
        unpack(inside, tar(), b"/missing")


def test_owner_can_be_forced(inside: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    unpack(inside, tar((entry("f", uid=5, gid=6), b"x")), owner=(1000, 1001))
    assert ((inside / "f").stat().st_uid, (inside / "f").stat().st_gid) == (1000, 1001)


def test_every_truncation_is_noticed(inside: Path) -> None:
    (inside / "sub" / "file").write_bytes(b"content" * 100)
    (inside / "sub" / ("n" * 150)).symlink_to("t" * 150)
    whole = pack(inside, b"/sub")
    boundaries = 0
    for length in range(0, len(whole) - 1024, 64):
        with root(inside) as fd, archive.Unpacker(fd, b"/") as unpacker:
            unpacker.feed(whole[:length])
            try:
                unpacker.finish()
            except ArchiveError as error:
                assert "cut off" in str(error)
            else:
                boundaries += 1
    assert boundaries <= 20  # cuts between two entries are no error, as for Go's reader


def test_bytes_behind_the_end_are_ignored(inside: Path) -> None:
    assert unpack(inside, tar(entry("a")) + b"garbage" * 1000).members == 1


def test_unpack_reads_to_the_end_of_the_stream(inside: Path) -> None:
    stream = io.BytesIO(tar(entry("a")) + bytes(100_000))
    with root(inside) as fd:
        archive.unpack(fd, b"/", stream)
    assert stream.read() == b""
