import bz2
import contextlib
import gzip
import lzma
import os
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from engine.registry.decompress import PIECE, decompress, rechunk
from engine.registry.errors import BadContent

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpack(data: bytes, *, size: int = 1 << 16, limit: int = 1 << 30) -> bytes:
    return b"".join(decompress(pieces(data, size), limit=limit))


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("kind", COMPRESS)
def test_every_format_comes_out_plain_however_it_is_cut(kind: str, size: int) -> None:
    data = os.urandom(3000) * 3 + bytes(100_000)
    assert unpack(COMPRESS[kind](data), size=size) == data


@pytest.mark.parametrize("kind", COMPRESS)
def test_members_one_behind_the_other_are_one_stream(kind: str) -> None:
    data = COMPRESS[kind](b"first") + COMPRESS[kind](b"") + COMPRESS[kind](b"second")
    for size in (1, 5, 1 << 16):
        assert unpack(data, size=size) == b"firstsecond"


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_stream_that_ends_early_is_refused(kind: str) -> None:
    data = COMPRESS[kind](os.urandom(5000))
    with pytest.raises(BadContent, match="ends too early"):
        unpack(data[:-3])


@pytest.mark.parametrize("kind", COMPRESS)
def test_damage_is_refused(kind: str) -> None:
    data = bytearray(COMPRESS[kind](os.urandom(5000)))
    data[len(data) // 2] ^= 0xFF
    data[12] ^= 0xFF
    with pytest.raises(BadContent):
        unpack(bytes(data) + b"tail that does not matter")


@pytest.mark.parametrize("kind", COMPRESS)
def test_something_else_behind_the_end_is_refused_but_padding_is_not(kind: str) -> None:
    data = COMPRESS[kind](b"content")
    assert unpack(data + bytes(512)) == b"content"
    with pytest.raises(BadContent, match="followed by"):
        unpack(data + b"something else")
    with pytest.raises(BadContent, match="followed by"):
        unpack(data + bytes(512) + b"x", size=64)


def test_plain_bytes_pass_through() -> None:
    assert unpack(b"ab") == b"ab"
    assert unpack(b"") == b""
    assert unpack(b"plain tar" * 100, size=3) == b"plain tar" * 100


def test_the_limit_stops_a_bomb() -> None:
    with pytest.raises(BadContent, match="more than 1000000 bytes"):
        unpack(gzip.compress(bytes(2_000_000)), limit=1_000_000)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_bomb_comes_out_in_bounded_pieces(kind: str) -> None:
    bomb = COMPRESS[kind](bytes(64 << 20))
    sizes = [len(piece) for piece in decompress([bomb], limit=1 << 30)]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= PIECE


def test_a_zstd_window_beyond_the_formats_limit_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(bytes(1 << 20)) + compressor.flush()
    with pytest.raises(BadContent, match="cannot be decompressed"):
        unpack(data)


@given(st.lists(st.binary(max_size=50)), st.integers(min_value=1, max_value=40))
def test_rechunk_keeps_the_bytes_and_fills_pieces(chunks: list[bytes], size: int) -> None:
    out = list(rechunk(chunks, size))
    assert b"".join(out) == b"".join(chunks)
    assert all(0 < len(piece) <= size for piece in out)


@given(
    st.binary(max_size=200), st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\x00"])
)
def test_garbage_is_refused_and_never_crashes(data: bytes, magic: bytes) -> None:
    with contextlib.suppress(BadContent):
        unpack(magic + data, size=11)
