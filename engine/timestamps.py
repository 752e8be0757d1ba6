"""Docker's ways to write a moment: RFC 3339, Unix seconds, or a duration ago. No I/O."""

from __future__ import annotations

import datetime
import re

from engine.http import BadRequest

__all__ = ["duration_ns", "format_ns", "parse_ns"]

ZERO = "0001-01-01T00:00:00Z"
_SECOND = 1_000_000_000
_MAX_NS = (1 << 63) - 1

_UNIX = re.compile(r"(-?[0-9]{1,18})(?:\.([0-9]{1,18}))?")
_STAMP = re.compile(
    r"([0-9]{4})-([0-9][0-9])-([0-9][0-9])(?:T([0-9][0-9])(?::([0-9][0-9])(?::([0-9][0-9])(?:\.([0-9]{1,9})[0-9]{0,9})?)?)?)?(Z|[+-][0-9][0-9]:[0-9][0-9])?"
)
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}


def format_ns(ns: int) -> str:
    """RFC 3339 with nanoseconds; 0 is Go's zero time, which clients read as "never"."""
    if ns <= 0:
        return ZERO
    seconds, rest = divmod(ns, _SECOND)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def duration_ns(text: str) -> int | None:
    """Go's durations ("1h30m", "-1.5s"); ``None`` when it is not one."""
    sign, body = 1, text
    if text[:1] in ("-", "+"):
        sign, body = (-1 if text[0] == "-" else 1), text[1:]
    if body == "0":
        return 0
    if not body:
        return None
    total, end = 0, 0
    while end < len(body):
        part = _PART.match(body, end)
        if part is None:
            return None
        whole, _, fraction = part[1].partition(".")
        unit = _UNITS[part[2]]
        total += int(whole or "0") * unit
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
        end = part.end()
    return sign * total if total <= _MAX_NS else None


def parse_ns(text: str, now_ns: int, *, what: str = "timestamp") -> int:
    """Nanoseconds since the epoch; a duration means so long before ``now_ns``. "" is 0."""
    if not text:
        return 0
    unix = _UNIX.fullmatch(text)
    if unix:
        ns = int(unix[1]) * _SECOND
        if unix[2]:
            ns += int(unix[2].ljust(9, "0")[:9])
        return _bounded(ns, text, what)
    ago = duration_ns(text)
    if ago is not None:
        return _bounded(now_ns - ago, text, what)
    stamp = _STAMP.fullmatch(text)
    if stamp is None:
        raise BadRequest(f"invalid value for {what}: {text!r} is not a time")
    year, month, day, hour, minute, second = (int(part or 0) for part in stamp.groups()[:6])
    zone = datetime.UTC
    if stamp[8] and stamp[8] != "Z":
        offset = int(stamp[8][1:3]) * 60 + int(stamp[8][4:6])
        offset = -offset if stamp[8][0] == "-" else offset
        if abs(offset) >= 24 * 60:
            raise BadRequest(f"invalid value for {what}: {text!r} is not a time")
        zone = datetime.timezone(datetime.timedelta(minutes=offset))
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError as error:
        raise BadRequest(f"invalid value for {what}: {text!r}: {error}") from error
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    seconds = (moment - epoch) // datetime.timedelta(seconds=1)
    return _bounded(seconds * _SECOND + int((stamp[7] or "").ljust(9, "0") or 0), text, what)


def _bounded(ns: int, text: str, what: str) -> int:
    if ns > _MAX_NS:
        raise BadRequest(f"invalid value for {what}: {text!r} is out of range")
    return max(ns, 0)
