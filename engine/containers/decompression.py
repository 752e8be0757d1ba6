"""Archives that clients send compressed: recognised by their first bytes, unpacked as they stream.

In this process, piece by piece: what comes out is bounded by what a piece of
input can make, and the receiver's own limits apply to the sum.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

import zstandard

from engine.http import BadRequest

__all__ = ["decompressed"]

OUTPUT = 1 << 20
ZSTD_SLICE = 256

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_LONGEST = max(len(magic) for magic in _MAGIC)


class _Decoder(Protocol):
    def decode(self, data: bytes) -> bytes:
        """At most about OUTPUT bytes of output for b"" or more input; ``b""`` = wants more input."""

    @property
    def ended(self) -> bool: ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, OUTPUT)

    @property
    def ended(self) -> bool:
        return self._inner.eof


class _Buffered:
    """bz2 and lzma: both keep their input and take a limit."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    def decode(self, data: bytes) -> bytes:
        if self._inner.eof:
            return b""
        return self._inner.decompress(data, OUTPUT)

    @property
    def ended(self) -> bool:
        return self._inner.eof


class _Zstandard:
    """Fed in tiny slices: four bytes can say "128 KiB of the same", and there is no output limit."""

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=128 << 20).decompressobj()
        self._waiting = b""

    def decode(self, data: bytes) -> bytes:
        self._waiting += data
        while self._waiting and not self._inner.eof:
            piece, self._waiting = self._waiting[:ZSTD_SLICE], self._waiting[ZSTD_SLICE:]
            output: bytes = self._inner.decompress(piece)
            if output:
                return output
        return b""

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)


def _decoder(kind: str) -> _Decoder:
    if kind == "gzip":
        return _Gzip()
    if kind == "bzip2":
        return _Buffered(bz2.BZ2Decompressor())
    if kind == "xz":
        return _Buffered(lzma.LZMADecompressor(memlimit=256 << 20))
    return _Zstandard()


async def decompressed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream itself, or what its gzip, bzip2, xz or zstd content unpacks to."""
    start = b""
    async for chunk in chunks:
        start += chunk
        if len(start) >= _LONGEST:
            break
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        if start:
            yield start
        async for chunk in chunks:
            yield chunk
        return
    decoder = _decoder(kind)
    async for piece in _decode_all(decoder, kind, start, chunks):
        yield piece
    if not decoder.ended:
        raise BadRequest(f"the {kind} archive is cut short")


async def _decode_all(
    decoder: _Decoder, kind: str, start: bytes, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    data: bytes = start
    while True:
        try:
            output = decoder.decode(data)
            while output:
                yield output
                output = b"" if decoder.ended else decoder.decode(b"")
        except (zlib.error, OSError, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
            raise BadRequest(f"the {kind} archive is damaged: {error}") from error
        following = await anext(chunks, None)
        if following is None or decoder.ended:
            return
        data = following
