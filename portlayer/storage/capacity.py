"""Sizes as people write them."""

from __future__ import annotations

import re

__all__ = ["parse_capacity"]

_SIZE = re.compile(r"\s*(\d{1,15})(?:\.(\d{1,6}))?\s*([kmgtp]?)(i?b?|)\s*", re.IGNORECASE)
_UNITS = "kmgtp"


def parse_capacity(text: str) -> int:
    """Bytes from ``10GB``, ``512m``, ``1.5GiB``, ``1048576``: binary units, as Docker and vSphere mean them.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[4].lower() == "i":
        raise ValueError(f"{text[:40]!r} is not a size (like 10GB, 512m or 1048576)")
    whole, fraction, unit, _ = match.groups()
    if fraction and not unit:
        raise ValueError(f"{text[:40]!r} is not a whole number of bytes")
    factor = 1 << (10 * (_UNITS.index(unit.lower()) + 1)) if unit else 1
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)
