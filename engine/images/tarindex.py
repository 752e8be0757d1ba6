"""Where the members of a tar lie, without unpacking anything: names, offsets, sizes. No I/O of its own.

For image archives, whose members are read in another order than they come. Nothing is ever written
under a member's name, so a hostile name can only fail to be found. Headers, counts and name lengths
are capped; BadContent is all that is raised.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from engine.registry.errors import BadContent

__all__ = ["Member", "Read", "TarIndex", "index_tar", "normal_name"]

Read = Callable[[int, int], bytes]  # offset, size

_BLOCK = 512
_MEMBERS_LIMIT = 100_000
_EXTENSION_LIMIT = 64 << 10  # bytes of one pax header or long name
_LINKS_LIMIT = 16  # one after the other
_REGULAR = (b"0", b"\0", b"7")
_IGNORED = (b"3", b"4", b"5", b"6")  # devices, directories, pipes


@dataclass(frozen=True, kw_only=True)
class Member:
    """A regular file's place, or where a link points."""

    offset: int = 0
    size: int = 0
    target: str = ""


class TarIndex:
    def __init__(self, members: dict[str, Member]) -> None:
        self._members = members

    def __contains__(self, name: str) -> bool:
        return normal_name(name) in self._members

    def find(self, name: str) -> Member:
        """The regular file of this name, through links inside the archive."""
        at = normal_name(name)
        for _ in range(_LINKS_LIMIT):
            member = self._members.get(at)
            if member is None:
                raise BadContent(f"the archive has no file {name[:200]!r}")
            if not member.target:
                return member
            at = member.target
        raise BadContent(f"the archive's {name[:200]!r} is behind too many links")


def normal_name(name: str) -> str:
    """One spelling per member: no leading slash or dots, "" when it points out of the archive."""
    return posixpath.normpath("/" + name).lstrip("/")


def index_tar(read: Read, size: int) -> TarIndex:
    """Walk the headers of a tar of ``size`` bytes."""
    members: dict[str, Member] = {}
    offset = 0
    long_name = long_link = ""
    extension: dict[str, str] = {}
    count = 0
    while offset + _BLOCK <= size:
        header = read(offset, _BLOCK)
        if not header.strip(b"\0"):
            break
        count += 1
        if count > _MEMBERS_LIMIT:
            raise BadContent(f"the archive has more than {_MEMBERS_LIMIT} members")
        _check_sum(header, offset)
        offset += _BLOCK
        kind = header[156:157]
        length = _number(header[124:136], "size")
        if kind in (b"x", b"g", b"L", b"K"):
            body = _extension(read, offset, length, size)
            offset += _padded(length)
            if kind == b"x":
                extension = _pax(body)
            elif kind == b"L":
                long_name = _text(body)
            elif kind == b"K":
                long_link = _text(body)
            continue
        if "size" in extension:
            length = _decimal(extension["size"])
        name = extension.get("path") or long_name or _header_name(header)
        link = extension.get("linkpath") or long_link or _text(header[157:257])
        long_name = long_link = ""
        extension = {}
        if kind in _REGULAR:
            if offset + length > size:
                raise BadContent("the archive ends too early")
            members[normal_name(name)] = Member(offset=offset, size=length)
            offset += _padded(length)
        elif kind == b"1":
            members[normal_name(name)] = Member(target=normal_name(link))
        elif kind == b"2":
            base = "" if link.startswith("/") else posixpath.dirname(normal_name(name))
            members[normal_name(name)] = Member(target=normal_name(posixpath.join(base, link)))
        elif kind in _IGNORED:
            members.pop(normal_name(name), None)
        else:
            raise BadContent(f"the archive has a member of unknown type {kind!r}")
    else:
        if offset < size or not members:
            raise BadContent("the archive is not a tar or ends too early")
    return TarIndex(members)


def _check_sum(header: bytes, offset: int) -> None:
    expected = _number(header[148:156], "checksum")
    plain = header[:148] + b" " * 8 + header[156:]
    if expected != sum(plain) and expected != sum(byte - 256 if byte > 127 else byte for byte in plain):
        raise BadContent(f"the archive is not a tar: bad header at byte {offset}")


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:  # base 256
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.strip(b"\0 ")
        if not all(byte in b"01234567" for byte in digits):
            raise BadContent(f"the archive is not a tar: malformed {what}")
        value = int(digits or b"0", 8)
    if value >= 1 << 62:
        raise BadContent(f"the archive is not a tar: malformed {what}")
    return value


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadContent("the archive has a malformed size")
    return int(text)


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _extension(read: Read, offset: int, length: int, size: int) -> bytes:
    if length > _EXTENSION_LIMIT:
        raise BadContent(f"the archive has an extension header of {length} bytes")
    if offset + length > size:
        raise BadContent("the archive ends too early")
    return read(offset, length)


def _pax(body: bytes) -> dict[str, str]:
    """Records of "length key=value\\n"."""
    found: dict[str, str] = {}
    while body:
        digits, space, _ = body[:20].partition(b" ")
        if not space or not digits.isdigit():
            raise BadContent("the archive has a malformed pax header")
        length = int(digits)
        record = body[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if not equals or length > len(body) or not record.endswith(b"\n"):
            raise BadContent("the archive has a malformed pax header")
        if key.startswith(b"GNU.sparse."):
            raise BadContent("the archive has a sparse member, which is not supported")
        found[_text(key)] = _text(value[:-1])
        body = body[length:]
    return found
