"""One entry of a tar archive, and the 512-byte block that announces it.

Reads ustar, GNU, star and pre-POSIX headers with octal or base-256 numbers;
writes ustar, with PAX records (:mod:`archive.pax`) for whatever ustar cannot
say. No I/O.
"""

from __future__ import annotations

import struct

from archive.errors import ArchiveError
from archive.pax import encode_records, encode_time

__all__ = [
    "BLOCK",
    "BLOCK_DEVICE",
    "CHAR_DEVICE",
    "CONTIGUOUS",
    "DIRECTORY",
    "FIFO",
    "FILE",
    "GNU_LONG_LINK",
    "GNU_LONG_NAME",
    "GNU_SPARSE",
    "HARD_LINK",
    "OLD_FILE",
    "PAX",
    "PAX_GLOBAL",
    "SOLARIS_PAX",
    "SYMBOLIC_LINK",
    "ZERO_BLOCK",
    "Member",
    "encode_header",
    "padding",
    "parse_header",
    "parse_number",
]

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

FILE = b"0"
OLD_FILE = b"\0"
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
CHAR_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
CONTIGUOUS = b"7"
PAX = b"x"
PAX_GLOBAL = b"g"
SOLARIS_PAX = b"X"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"

_WITHOUT_DATA = frozenset((HARD_LINK, SYMBOLIC_LINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
# name mode uid gid size mtime checksum type link magic user group major minor rest
_LAYOUT = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s167s")
_MAGIC_USTAR = b"ustar\x0000"
_MAX_OCTAL_7 = 0o7777777  # what seven octal digits hold
_MAX_OCTAL_11 = 0o77777777777


class Member:
    """An entry: what it is, and how many bytes of data follow in the stream."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        *,
        name: bytes,
        kind: bytes = FILE,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
    ) -> None:
        self.name = name
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size  # bytes of data in the stream
        self.mtime_ns = mtime_ns
        self.link = link
        self.major = major
        self.minor = minor
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None  # (offset, length) of each piece of data
        self.real_size = size  # differs from `size` for sparse files


def padding(size: int) -> int:
    """Zero bytes behind ``size`` bytes of data."""
    return -size % BLOCK


def parse_number(field: bytes, member: bytes, what: str) -> int:
    """An octal or base-256 number."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ArchiveError(member, f"malformed {what} in the header")
    try:
        return int(digits, 8)
    except ValueError:
        raise ArchiveError(member, f"malformed {what} in the header") from None


def parse_header(block: bytes) -> Member:
    """A member from its block, which is not all zeros.

    Raises:
        ArchiveError: wrong checksum, or a number that is none.
    """
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, rest) = (
        _LAYOUT.unpack(block)
    )
    name = name.split(b"\0", 1)[0]
    claimed = checksum.split(b"\0", 1)[0].strip(b" ")
    sums = (sum(block) - sum(checksum) + 8 * 0x20, _signed_sum(block, checksum))
    if not claimed.isdigit() or claimed.strip(b"01234567") or int(claimed, 8) not in sums:
        raise ArchiveError(b"", "not a tar header (wrong checksum)")
    if magic == _MAGIC_USTAR:
        prefix = rest[:131] if rest[163:167] == b"tar\0" else rest[:155]
        prefix = prefix.split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    if kind == OLD_FILE:
        kind = DIRECTORY if name.endswith(b"/") else FILE
    elif kind == CONTIGUOUS:
        kind = FILE
    member = Member(
        name=name,
        kind=kind,
        mode=parse_number(mode, name, "mode") & 0o7777,
        uid=parse_number(uid, name, "uid"),
        gid=parse_number(gid, name, "gid"),
        size=0 if kind in _WITHOUT_DATA else parse_number(size, name, "size"),
        mtime_ns=parse_number(mtime, name, "mtime") * 1_000_000_000,
        link=link.split(b"\0", 1)[0],
    )
    if kind in (CHAR_DEVICE, BLOCK_DEVICE):
        member.major = parse_number(major, name, "device number")
        member.minor = parse_number(minor, name, "device number")
    return member


def _signed_sum(block: bytes, checksum: bytes) -> int:
    """The checksum as historical tars with signed chars computed it."""
    numbers = struct.unpack("512b", block)
    return int(sum(numbers) - sum(struct.unpack("8b", checksum)) + 8 * 0x20)


def encode_header(member: Member, more: dict[bytes, bytes] | None = None) -> bytes:
    """The blocks that announce ``member``: a PAX header first where ustar is too small.

    ``more`` are further PAX records (sparse files: :mod:`archive.packing`).
    """
    records: dict[bytes, bytes] = {}
    short, prefix = _split_name(member.name)
    if short is None:
        records[b"path"] = member.name
        short = member.name[:100]
    if len(member.link) > 100:
        records[b"linkpath"] = member.link
    if member.uid > _MAX_OCTAL_7:
        records[b"uid"] = b"%d" % member.uid
    if member.gid > _MAX_OCTAL_7:
        records[b"gid"] = b"%d" % member.gid
    if member.size > _MAX_OCTAL_11:
        records[b"size"] = b"%d" % member.size
    seconds, fraction = divmod(member.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds <= _MAX_OCTAL_11:
        records[b"mtime"] = encode_time(member.mtime_ns)
    for key, value in member.xattrs.items():
        records[b"SCHILY.xattr." + key] = value
    if more:
        records.update(more)
    block = _encode_block(member, short, prefix)
    if not records:
        return block
    body = encode_records(records)
    extension = Member(name=b"", kind=PAX, size=len(body), mtime_ns=member.mtime_ns)
    announcement = _encode_block(extension, b"PaxHeaders/" + short[-80:].lstrip(b"/"), b"")
    return b"".join((announcement, body, bytes(padding(len(body))), block))


def _encode_block(member: Member, name: bytes, prefix: bytes) -> bytes:
    """One ustar block; what does not fit is cut or zero (and in a PAX record)."""
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        member.mode & 0o7777,
        member.uid if member.uid <= _MAX_OCTAL_7 else 0,
        member.gid if member.gid <= _MAX_OCTAL_7 else 0,
        member.size if member.size <= _MAX_OCTAL_11 else 0,
        min(max(member.mtime_ns // 1_000_000_000, 0), _MAX_OCTAL_11),
    )
    tail = b"%s%sustar\x0000%s%07o\0%07o\0%s" % (
        member.kind,
        member.link[:100].ljust(100, b"\0"),
        bytes(64),
        member.major,
        member.minor,
        prefix.ljust(167, b"\0"),
    )
    return b"%s%06o\0 %s" % (head, sum(head) + sum(tail) + 8 * 0x20, tail)


def _split_name(name: bytes) -> tuple[bytes | None, bytes]:
    """``name`` as ustar's (name, prefix), or (None, b"") when it does not fit."""
    if len(name) <= 100:
        return name, b""
    if len(name) > 256:
        return None, b""
    slash = name.find(b"/", len(name) - 101)
    if 0 < slash <= 155 and slash + 1 < len(name):
        return name[slash + 1 :], name[:slash]
    return None, b""
