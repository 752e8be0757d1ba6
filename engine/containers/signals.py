"""Signals by number or name, as Docker takes them, always Linux' numbers. No I/O."""

from __future__ import annotations

import re

from engine.http import BadRequest

__all__ = ["SIGNALS", "parse_signal"]

_ORDER = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP "
    "TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
SIGNALS = {name: number for number, name in enumerate(_ORDER.split(), start=1)}
SIGNALS |= {"IOT": 6, "CLD": 17, "POLL": 29}

_REALTIME = re.compile(r"RT(MIN(?:\+([0-9]{1,2}))?|MAX(?:-([0-9]{1,2}))?)")
_RTMIN, _RTMAX = 34, 64


def parse_signal(text: str) -> int:
    """1…64, or BadRequest with Docker's words."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 5 else 0
        if 1 <= number <= _RTMAX:
            return number
        raise BadRequest(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    if name in SIGNALS:
        return SIGNALS[name]
    found = _REALTIME.fullmatch(name)
    if found:
        number = _RTMIN + int(found[2] or 0) if found[1].startswith("MIN") else _RTMAX - int(found[3] or 0)
        if _RTMIN <= number <= _RTMAX:
            return number
    raise BadRequest(f"invalid signal: {text}")
