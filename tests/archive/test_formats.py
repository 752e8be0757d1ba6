"""Headers other tools write: old, GNU, star; and sparse files in all four ways."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from archive import ArchiveError, Limits
from archive.decoder import Decoder
from archive.members import Member, encode_header, padding, parse_number
from archive.pax import encode_records, encode_time, parse_records, parse_time
from tests.archive.support import entry, pack, snapshot, tar, unpack


def decode(data: bytes) -> list[tuple[Member, bytes]]:
    found: list[tuple[Member, bytes]] = []
    decoder = Decoder(Limits())
    for event in decoder.feed(data):
        if isinstance(event, Member):
            found.append((event, b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + bytes(event))
    decoder.finish()
    return found


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_pythons_tarfile_writes(kind: int) -> None:
    long = "d" * 90 + "/" + "n" * 90
    data = tar((entry(long, uid=1000, mtime=1234), b"content"), entry("end"), kind=kind)
    (first, content), (second, _) = decode(data)
    assert (first.name, first.uid, first.mtime_ns, content) == (long.encode(), 1000, 1234 * 10**9, b"content")
    assert second.name == b"end"


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_very_long_names_and_links(kind: int) -> None:
    name, link = "n/" * 500 + "x", "l/" * 600
    ((member, _),) = decode(tar(entry(name, tarfile.SYMTYPE, linkname=link), kind=kind))
    assert (member.name, member.link) == (name.encode(), link.encode())


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_numbers_too_big_for_octal(kind: int) -> None:
    info = entry("big", uid=1 << 31, gid=3_000_000_000, mtime=-5)
    ((member, _),) = decode(tar(info, kind=kind))
    assert (member.uid, member.gid, member.mtime_ns) == (1 << 31, 3_000_000_000, -5 * 10**9)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"644\0junk", 0o644),
        (b"\0\0\0\0\0\0\0\0", 0),
        (b"        ", 0),
        (b"\x80\0\0\0\0\0\x01\0", 256),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfb", -5),
    ],
)
def test_numbers(field: bytes, expected: int) -> None:
    assert parse_number(field, b"", "mode") == expected


@pytest.mark.parametrize(
    "field", [b"0000648\0", b"-000644\0", b"0o644\0\0\0", b"6_44\0\0\0\0", b"+644\0\0\0\0", b"abc\0\0\0\0\0"]
)
def test_what_is_no_number(field: bytes) -> None:
    with pytest.raises(ArchiveError, match="malformed mode"):
        parse_number(field, b"x", "mode")


def test_old_directories_end_in_a_slash() -> None:
    header = entry("dir/", tarfile.AREGTYPE).tobuf(tarfile.USTAR_FORMAT)
    ((member, _),) = decode(header + bytes(1024))
    assert (member.name, member.kind) == (b"dir", b"5")


def test_signed_checksums_are_accepted() -> None:
    header = bytearray(entry("caf\u00e9").tobuf(tarfile.USTAR_FORMAT, "utf-8"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in header[:148] + b" " * 8 + header[156:])
    header[148:156] = b"%06o\0 " % signed
    ((member, _),) = decode(bytes(header) + bytes(1024))
    assert member.name == "café".encode()


def test_volume_labels_are_skipped() -> None:
    assert [member.name for member, _ in decode(tar(entry("label", b"V"), entry("file")))] == [b"file"]


def test_links_have_no_data_whatever_their_size_says() -> None:
    data = entry("link", tarfile.LNKTYPE, linkname="x", size=1000).tobuf(tarfile.USTAR_FORMAT)
    assert [member.name for member, _ in decode(data + tar(entry("next")))] == [b"link", b"next"]


def test_comment_in_a_global_header_is_fine_anything_else_is_not() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "git's commit"}) as file:
        file.addfile(entry("file"))
    assert [member.name for member, _ in decode(buffer.getvalue())] == [b"file"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"path": "everything"}) as file:
        file.addfile(entry("file"))
    with pytest.raises(ArchiveError, match="global PAX record 'path' is not supported"):
        decode(buffer.getvalue())


# -- PAX records


@pytest.mark.parametrize("length", [*range(90, 110), *range(985, 1000)])
def test_record_lengths_count_their_own_digits(length: int) -> None:
    body = encode_records({b"key": b"v" * length})
    assert parse_records(body, b"") == [(b"key", b"v" * length)]


@pytest.mark.parametrize(
    "body",
    [
        b"x",
        b"5 a=b",
        b"6 a=b\n6",
        b"-6 a=b\n",
        b"0 a=b\n",
        b"2 \n",
        b"99999999999999999999999 a=b\n",
        b"7 a=b\n",
        b"5 ab\n",
        b"5 =b\n",
        b"7 a\0=b\n",
    ],
)
def test_malformed_records(body: bytes) -> None:
    with pytest.raises(ArchiveError, match="malformed PAX record"):
        parse_records(body, b"x")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"-0.000000001", -1),
        (b"1.123456789", 1_123_456_789),
    ],
)
def test_times_both_ways(text: bytes, nanoseconds: int) -> None:
    assert parse_time(text, b"") == nanoseconds
    assert parse_time(encode_time(nanoseconds), b"") == nanoseconds


def test_time_digits_beyond_nanoseconds_are_cut() -> None:
    assert parse_time(b"1.1234567899", b"") == 1_123_456_789


@pytest.mark.parametrize("text", [b"", b".", b"-", b"1e5", b"1.2.3", b"0x1", b"1" * 30, b"nan"])
def test_malformed_times(text: bytes) -> None:
    with pytest.raises(ArchiveError, match="malformed mtime"):
        parse_time(text, b"x")


def test_an_empty_record_leaves_the_header_as_it_is() -> None:
    ((member, _),) = decode(tar(entry("file", pax_headers={"path": ""})))
    assert member.name == b"file"


def test_headers_fill_whole_blocks() -> None:
    for length in (10, 100, 101, 155, 156, 255, 256, 257, 1000):
        member = Member(name=b"d/" + b"n" * length)
        header = encode_header(member)
        assert len(header) % 512 == 0
        assert decode(header + bytes(1024))[0][0].name == member.name
    assert [padding(size) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]


# -- sparse files


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    with (path / "file").open("wb") as file:
        for number in range(40):  # more pieces than an old GNU header holds
            file.seek(number * 1_000_000)
            file.write(b"%d" % number * 1000)
        file.truncate(60_000_000)
    return path


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
)
def test_sparse_files_of_gnu_tar(sparse: Path, tmp_path: Path, options: list[str]) -> None:
    data = subprocess.run(
        ["tar", "-C", sparse, "--sparse", *options, "-cf", "-", "file"], capture_output=True, check=True
    ).stdout
    assert len(data) < 3_000_000
    target = tmp_path / "target"
    target.mkdir()
    unpack(target, data)
    assert (target / "file").read_bytes() == (sparse / "file").read_bytes()
    assert (target / "file").stat().st_blocks == (sparse / "file").stat().st_blocks


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_gnu_tar_reads_our_sparse_files(sparse: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xf", "-"], input=pack(sparse, b"file"), check=True)
    os.utime(target, ns=(0, sparse.stat().st_mtime_ns))
    assert snapshot(target) == snapshot(sparse)


@pytest.mark.parametrize(
    ("text", "real_size"),
    [
        ("0,10,5,5", 20),  # overlap
        ("10,5,0,5", 20),  # backwards
        ("0,5,5,10", 10),  # beyond the end
        ("0,5", 20),  # less than the data
        ("0,30", 30),  # more than the data
        ("0,x", 20),
        ("0", 20),
        ("-1,16", 20),
    ],
)
def test_malformed_maps(tmp_path: Path, text: str, real_size: int) -> None:
    info = entry("file", pax_headers={"GNU.sparse.map": text, "GNU.sparse.size": str(real_size)})
    with pytest.raises(ArchiveError, match="sparse map"):
        unpack(tmp_path, tar((info, b"x" * 15)))


@pytest.mark.parametrize(
    "text", [b"", b"x\n", b"1\n0\n", b"99999999\n", b"2\n0\n1\n", b"9" * 600, b"1\n0\n99\n"]
)
def test_malformed_maps_in_front_of_the_data(tmp_path: Path, text: bytes) -> None:
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "n",
        "GNU.sparse.realsize": "9",
    }
    data = tar((entry("file", pax_headers=headers), text.ljust(512, b"\0")))
    with pytest.raises(ArchiveError):
        unpack(tmp_path, data)
