"""One line of output as one syslog message, in the formats of Docker's syslog driver. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Source", "message"]

_ERROR, _INFO = 3, 6
_STDERR = 2
_NANO = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is the same in every message of one container."""

    facility: int
    tag: str
    hostname: str
    process: int
    form: str = ""  # "", "rfc3164", "rfc5424" or "rfc5424micro"
    counted: bool = False  # RFC 5425: its length goes before each message (RFC 5424 over TLS)


def message(source: Source, *, stream: int, time_ns: int, line: bytes) -> bytes:
    """``line`` with or without its newline; the message has one."""
    priority = source.facility << 3 | (_ERROR if stream == _STDERR else _INFO)
    if source.form in ("rfc5424", "rfc5424micro"):
        stamp = _rfc3339(time_ns, micro=source.form == "rfc5424micro")
        head = f"<{priority}>1 {stamp} {source.hostname} {source.tag} {source.process} {source.tag} - "
    else:
        host = f"{source.hostname} " if source.form == "rfc3164" else ""
        head = f"<{priority}>{_stamp(time_ns)} {host}{source.tag}[{source.process}]: "
    text = head.encode() + line.removesuffix(b"\n") + b"\n"
    return b"%d %s" % (len(text), text) if source.counted else text


def _stamp(time_ns: int) -> str:
    """ "Jan  2 15:04:05" in local time, as RFC 3164 wants it, whatever the locale."""
    moment = time.localtime(time_ns // _NANO)
    month = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * moment.tm_mon - 3 : 3 * moment.tm_mon]
    return f"{month} {moment.tm_mday:2} {moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"


def _rfc3339(time_ns: int, *, micro: bool) -> str:
    seconds, rest = divmod(time_ns, _NANO)
    moment = time.localtime(seconds)
    zone = time.strftime("%z", moment)
    offset = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    fraction = f".{rest // 1000:06}" if micro else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}{fraction}{offset}"
