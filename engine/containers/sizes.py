"""Sizes as people write them. No I/O."""

from __future__ import annotations

import re

from engine.http import BadRequest

__all__ = ["size_in_bytes"]

_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?\s*([kmgtp]?)(i?b)?", re.IGNORECASE)


def size_in_bytes(text: str, message: str) -> int:
    """ "20m", "1.5GB", "100": binary units as Docker's; BadRequest with ``message`` for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadRequest(message)
    unit = 1024 ** "_kmgtp".index(found[3].lower() or "_")
    size: int = int(found[1]) * unit
    if found[2]:
        size += int(found[2]) * unit // 10 ** len(found[2])
    if not 0 < size < 1 << 62:
        raise BadRequest(message)
    return size
