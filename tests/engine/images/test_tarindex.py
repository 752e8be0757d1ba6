import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.images.tarindex import TarIndex, index_tar, normal_name
from engine.registry.errors import BadContent


def index(data: bytes) -> TarIndex:
    return index_tar(lambda offset, size: data[offset : offset + size], len(data))


def made(*members: tuple[str, bytes | str], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Files by bytes, symbolic links by text, hard links by "=text"."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                info.linkname = content.removeprefix("=")
                tar.addfile(info)
    return buffer.getvalue()


def content(data: bytes, name: str) -> bytes:
    member = index(data).find(name)
    return data[member.offset : member.offset + member.size]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_in_every_dialect(format: int) -> None:
    long = "d/" * 60 + "file"
    data = made(("./a", b"one"), ("dir/b", b"x" * 600), (long, b"long"), ("empty", b""), format=format)
    assert content(data, "a") == b"one"
    assert content(data, "/dir/./b") == b"x" * 600
    assert content(data, long) == b"long"
    assert content(data, "empty") == b""
    assert "nothing" not in index(data)


def test_names_that_no_header_can_hold() -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "ü" * 150
        assert content(made((name, b"x"), ("l", name), format=format), "l") == b"x"


def test_links_inside_the_archive_are_followed() -> None:
    data = made(
        ("aa/layer.tar", b"layer"),
        ("bb/layer.tar", "../aa/layer.tar"),
        ("cc", "=bb/layer.tar"),
        ("dd", "/cc"),
    )
    for name in ("bb/layer.tar", "cc", "dd"):
        assert content(data, name) == b"layer"


def test_links_lead_nowhere_else() -> None:
    data = made(("a", "../../../etc/passwd"), ("b", "b"), ("c", "d"), ("d", "c"))
    with pytest.raises(BadContent, match="no file"):
        index(data).find("a")
    for name in ("b", "c"):
        with pytest.raises(BadContent, match="too many links"):
            index(data).find(name)


def test_a_later_member_replaces_an_earlier_one() -> None:
    assert content(made(("a", b"old"), ("a", b"new")), "a") == b"new"


def test_sizes_beyond_octal() -> None:
    info = tarfile.TarInfo("big")
    info.size = 9 << 33
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(BadContent, match="ends too early"):
        index(header + bytes(1024))
    assert index_tar(lambda offset, size: (header + bytes(1024))[offset : offset + size], (9 << 33) + 1024)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a tar"),
        (b"x" * 100, "not a tar"),
        (b"x" * 1024, "bad header|malformed"),
        (made(("a", b"x" * 600))[:700], "ends too early"),
        (made(("a", b"x" * 600))[:1100], "ends too early"),
    ],
)
def test_what_is_no_tar_or_is_cut_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadContent, match=words):
        index(data)


def test_a_tar_without_its_closing_blocks_is_taken() -> None:
    assert content(made(("a", b"x"))[:1024], "a") == b"x"


def test_special_members_are_passed_over_and_sparse_ones_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("special")
            info.type = kind
            tar.addfile(info)
    assert "special" not in index(buffer.getvalue())
    sparse = tarfile.TarInfo("s")
    sparse.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(BadContent, match="unknown type"):
        index(sparse.tobuf() + bytes(1024))


def test_headers_and_counts_are_capped() -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1 << 20
    with pytest.raises(BadContent, match="extension header of"):
        index(info.tobuf() + bytes(2 << 20))
    one = tarfile.TarInfo("x").tobuf()
    block = one * 1000

    def read(offset: int, size: int) -> bytes:
        start = offset % len(block)
        return block[start : start + size]

    with pytest.raises(BadContent, match="more than 100000 members"):
        index_tar(read, len(one) * 100_002)


def test_malformed_pax_headers_are_refused() -> None:
    for body in (b"x", b"5 a", b"99 a=b\n", b"6 ab\n\n", b"0 a=b\n", b"22 GNU.sparse.size=1\n"):
        info = tarfile.TarInfo("x")
        info.type = tarfile.XHDTYPE
        info.size = len(body)
        with pytest.raises(BadContent, match=r"pax|sparse"):
            index(info.tobuf() + body.ljust(512, b"\0") + bytes(1024))


@pytest.mark.parametrize(
    ("name", "normal"), [("/a", "a"), ("./a/../b", "b"), ("../../x", "x"), ("a//b/", "a/b"), (".", "")]
)
def test_names_have_one_spelling(name: str, normal: str) -> None:
    assert normal_name(name) == normal


@given(st.binary(max_size=3000))
def test_any_bytes_are_indexed_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadContent):
        index(data)


@given(st.data())
def test_a_damaged_tar_is_indexed_or_refused(data: st.DataObject) -> None:
    tar = bytearray(made(("a" * 120, b"x" * 700), ("b", "a"), ("c", "=b")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(tar) - 1))
        tar[at] = data.draw(st.integers(0, 255))
    # the damage shall get past the checksum, too
    for offset in range(0, len(tar) - 512, 512):
        if tar[offset + 257 : offset + 262] == b"ustar":
            total = sum(tar[offset : offset + 148]) + 256 + sum(tar[offset + 156 : offset + 512])
            tar[offset + 148 : offset + 156] = b"%06o\0 " % total
    with contextlib.suppress(BadContent):
        found = index(bytes(tar[: data.draw(st.integers(0, len(tar)))]))
        for name in ("a" * 120, "b", "c"):
            with contextlib.suppress(BadContent):
                found.find(name)
