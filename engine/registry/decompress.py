"""Layers come as plain tar, gzip, zstd, bzip2 or xz: told apart by their first bytes, never by their label.

Synchronous iterators, meant for a thread. Output pieces are bounded whatever the input claims, so a
decompression bomb costs time and never memory. A stream that ends in the middle, or goes on with
something else behind its end, is BadContent.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import zstandard

from engine.registry.errors import BadContent

__all__ = ["PIECE", "decompress", "rechunk"]

PIECE = 1 << 20  # bytes per output piece; gRPC messages carry one each
_SLICE = 128 << 10  # input per step: what is left of it is copied at every output piece
# zstandard's push interface has no bound on output; one byte-run block is 4 bytes of input for
# 128 KiB of output, so this bounds a step to 64 MiB.
_ZSTD_SLICE = 2 << 10
_ZSTD_WINDOW = 128 << 20  # the format's own default limit for decoders
_SNIFF = 6


class _Member(Protocol):
    """One gzip member, zstd frame, … of a stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused(self) -> bytes: ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._inner.eof:
            yield self._inner.decompress(data, PIECE)
            data = self._inner.unconsumed_tail


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._unused = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._unused

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE):
            yield self._inner.decompress(data[start : start + _ZSTD_SLICE])
            if self._inner.eof:
                self._unused = self._inner.unused_data + data[start + _ZSTD_SLICE :]
                return


class _Standard:
    """bz2 and lzma share one interface."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> bytes:
        return self._inner.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._inner.decompress(data, PIECE)
        while not self._inner.eof and not self._inner.needs_input:
            yield self._inner.decompress(b"", PIECE)


_XZ_MEMORY = 256 << 20


def _member(magic: bytes) -> _Member | None:
    if magic.startswith(b"\x1f\x8b"):
        return _Gzip()
    if magic.startswith(b"\x28\xb5\x2f\xfd") or (magic[1:4] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50):
        return _Zstd()  # a frame, or a skippable frame
    if magic.startswith(b"BZh"):
        return _Standard(bz2.BZ2Decompressor())
    if magic.startswith(b"\xfd7zXZ\x00"):
        return _Standard(lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
    return None


def decompress(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """Plain bytes in pieces of at most about PIECE (64 × PIECE for hostile zstd), ``limit`` in all."""
    total = 0
    for piece in rechunk(_plain(iter(chunks))):
        total += len(piece)
        if total > limit:
            raise BadContent(f"the archive unpacks to more than {limit} bytes")
        yield piece


def rechunk(pieces: Iterable[bytes], size: int = PIECE) -> Iterator[bytes]:
    """Join small pieces: every one that travels costs a thread switch and a message."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        if piece:
            held.append(piece)
            length += len(piece)
        if length >= size:
            joined = held[0] if len(held) == 1 else b"".join(held)
            yield from (joined[at : at + size] for at in range(0, len(joined), size))
            held, length = [], 0
    if held:
        yield b"".join(held)


def _plain(chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _SNIFF:
            break
    member = _member(head)
    if member is None:
        yield head
        yield from chunks
        return
    try:
        yield from _members(member, head, chunks)
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError) as error:
        raise BadContent(f"the archive cannot be decompressed: {error}") from error


def _members(member: _Member, head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    kind = type(member)
    pending = head
    while True:
        for start in range(0, len(pending), _SLICE):
            yield from member.feed(pending[start : start + _SLICE])
            if member.eof:
                pending = member.unused + pending[start + _SLICE :]
                break
        else:
            pending = b""
        if not pending:
            pending = next(chunks, b"")
            if not pending:
                break
        if not member.eof:
            continue
        while len(pending) < _SNIFF and (more := next(chunks, b"")):
            pending += more
        following = _member(pending)
        if following is None or type(following) is not kind:
            if pending.strip(b"\0") or any(chunk.strip(b"\0") for chunk in chunks):
                raise BadContent("the archive is followed by something that is not part of it")
            return  # padding, as tapes and some tools leave it
        member = following
    if not member.eof:
        raise BadContent("the compressed archive ends too early")
