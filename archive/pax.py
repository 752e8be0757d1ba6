"""PAX records: ``length key=value newline``, and what their values mean. No I/O."""

from __future__ import annotations

from archive.errors import ArchiveError

__all__ = ["encode_records", "encode_time", "parse_decimal", "parse_records", "parse_time"]

_SECOND = 1_000_000_000


def parse_records(body: bytes, member: bytes) -> list[tuple[bytes, bytes]]:
    """The records of one extended header, in order (sparse maps repeat keys)."""
    records = []
    position = 0
    end = len(body)
    while position < end:
        space = body.find(b" ", position, position + 20)
        digits = body[position:space] if space > position else b""
        if not digits.isdigit():
            raise ArchiveError(member, "malformed PAX record (length)")
        stop = position + int(digits)
        if stop <= space + 1 or stop > end or body[stop - 1] != 0x0A:
            raise ArchiveError(member, "malformed PAX record (length does not fit)")
        key, equals, value = body[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise ArchiveError(member, "malformed PAX record (key)")
        records.append((key, value))
        position = stop
    return records


def encode_records(records: dict[bytes, bytes]) -> bytes:
    """The body of an extended header."""
    encoded = []
    if any(not _is_text(value) for key, value in records.items() if key in (b"path", b"linkpath")):
        encoded.append(_encode_record(b"hdrcharset", b"BINARY"))  # must come first
    encoded.extend(_encode_record(key, value) for key, value in records.items())
    return b"".join(encoded)


def parse_decimal(value: bytes, member: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ArchiveError(member, f"malformed {what} in a PAX record")
    return int(value)


def parse_time(value: bytes, member: bytes) -> int:
    """Nanoseconds from ``[-]seconds[.fraction]``; further digits are cut off."""
    negative = value.startswith(b"-")
    whole, _, fraction = value[negative:].partition(b".")
    if not (whole or fraction) or not (whole + fraction).isdigit() or len(whole) > 20:
        raise ArchiveError(member, "malformed mtime in a PAX record")
    nanoseconds = int(whole or b"0") * _SECOND + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if negative else nanoseconds


def encode_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    if not fraction:
        return b"%s%d" % (sign, seconds)
    return sign + b"%d.%09d" % (seconds, fraction)


def _encode_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3  # space, equals sign, newline
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:  # its own digits made it longer
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
