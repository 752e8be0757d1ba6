"""Takes the leading slashes from the names in a tar stream, for ``docker export``. No I/O.

The port layer's archive of ``/`` names entries ``/bin/sh``, as ``docker cp``
wants it; an exported file system has ``bin/sh``. Only headers are touched: an
entry's extension records (PAX ``x``, GNU ``L`` and ``K``) are held back until its
own header says whether the link name is a path of the archive (hard links) or
the link's text (symbolic ones). Content passes through as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BadTar", "NameStripper"]

BLOCK = 512
MAX_EXTENSION = 1 << 20
MAX_EXTENSIONS = 8

_NAME, _SIZE, _CHECKSUM, _LINK, _PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    slice(157, 257),
    slice(345, 500),
)
_ROOT = b"./"


class BadTar(Exception):
    """What comes is no tar stream; the message says where it stops being one."""


@dataclass
class _Extension:
    header: bytearray
    payload: bytes


class NameStripper:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pass = 0  # bytes of content that go through as they are
        self._extensions: list[_Extension] = []

    def feed(self, data: bytes) -> bytes:
        """What can be sent on; the rest is held until more comes."""
        self._buffer += data
        output = bytearray()
        while self._buffer:
            if self._pass:
                taken = min(self._pass, len(self._buffer))
                output += self._buffer[:taken]
                del self._buffer[:taken]
                self._pass -= taken
            elif not self._step(output):
                break
        return bytes(output)

    def finish(self) -> None:
        """The stream ended: in the middle of an entry?"""
        if self._buffer or self._pass or self._extensions:
            raise BadTar("the archive is cut short")

    def _step(self, output: bytearray) -> bool:
        if len(self._buffer) < BLOCK:
            return False
        header = self._buffer[:BLOCK]
        if not any(header):
            output += header
            del self._buffer[:BLOCK]
            return True
        size, kind = _number(bytes(header[_SIZE])), bytes(header[156:157])
        padded = -(-size // BLOCK) * BLOCK
        if kind in (b"x", b"L", b"K"):
            if size > MAX_EXTENSION or len(self._extensions) >= MAX_EXTENSIONS:
                raise BadTar("an extension record is too large")
            if len(self._buffer) < BLOCK + padded:
                return False
            self._extensions.append(_Extension(header, bytes(self._buffer[BLOCK : BLOCK + size])))
            del self._buffer[: BLOCK + padded]
            return True
        hard_link = kind == b"1"
        for extension in self._extensions:
            output += _rewritten(extension, hard_link=hard_link)
        self._extensions = []
        _strip_header(header, hard_link=hard_link)
        output += header
        del self._buffer[:BLOCK]
        # links, devices and directories have no content, whatever their size field says
        self._pass = 0 if kind in (b"1", b"2", b"3", b"4", b"5", b"6") else padded
        return True


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for sizes beyond 8 GiB
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    else:
        text = field.split(b"\0", 1)[0].strip() or b"0"
        try:
            value = int(text, 8)
        except ValueError:
            raise BadTar(f"a size is no number: {bytes(field)!r}") from None
    if not 0 <= value < 1 << 62:
        raise BadTar("a size is out of range")
    return value


def _stripped(name: bytes) -> bytes:
    return name.lstrip(b"/") or _ROOT


def _set(header: bytearray, field: slice, value: bytes) -> None:
    header[field] = value.ljust(field.stop - field.start, b"\0")


def _seal(header: bytearray) -> None:
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)


def _strip_header(header: bytearray, *, hard_link: bool) -> None:
    prefix = bytes(header[_PREFIX]).rstrip(b"\0") if header[257:262] == b"ustar" else b""
    if prefix.startswith(b"/"):
        _set(header, _PREFIX, prefix.lstrip(b"/"))
    elif not prefix:
        _set(header, _NAME, _stripped(bytes(header[_NAME]).split(b"\0", 1)[0]))
    if hard_link:
        _set(header, _LINK, _stripped(bytes(header[_LINK]).split(b"\0", 1)[0]))
    _seal(header)


def _rewritten(extension: _Extension, *, hard_link: bool) -> bytes:
    kind, payload = bytes(extension.header[156:157]), extension.payload
    if kind == b"x":
        payload = _rewritten_pax(payload, hard_link=hard_link)
    elif kind == b"L" or hard_link:
        payload = _stripped(payload.rstrip(b"\0")) + b"\0"
    _set(extension.header, _SIZE, b"%011o\0" % len(payload))
    _seal(extension.header)
    return bytes(extension.header) + payload + bytes(-len(payload) % BLOCK)


def _rewritten_pax(payload: bytes, *, hard_link: bool) -> bytes:
    result = bytearray()
    while payload:
        digits, _, _ = payload.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record, payload = payload[:length], payload[length:]
        keyword, separator, value = record[len(digits) + 1 : -1].partition(b"=")
        if not separator or not record.endswith(b"\n"):
            raise BadTar("a PAX record is malformed")
        if keyword == b"path" or (keyword == b"linkpath" and hard_link):
            value = _stripped(value)
        result += _pax_record(keyword, value)
    return bytes(result)


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    """The length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)
