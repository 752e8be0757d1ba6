"""Matching names against the `reference` filter, as Docker does: shell patterns where * stops at a slash."""

from __future__ import annotations

import re

from engine.http import BadRequest
from engine.registry.reference import Reference

__all__ = ["matches", "pattern"]

_PATTERN_LIMIT = 512


def pattern(text: str) -> re.Pattern[str]:
    """Go's path.Match as a regular expression; BadRequest for a malformed one."""
    if len(text) > _PATTERN_LIMIT:
        raise BadRequest("invalid filter 'reference': the pattern is too long")
    out: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*":
            if not out or out[-1] != "[^/]*":  # two stars are one, and would only cost time
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            if position == len(text):
                raise _malformed(text)
            out.append(re.escape(text[position]))
            position += 1
        elif char == "[":
            piece, position = _bracket(text, position)
            out.append(piece)
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise _malformed(text) from error


def _bracket(text: str, position: int) -> tuple[str, int]:
    """A character class behind its "["; the position behind its "]"."""
    negated = text[position : position + 1] == "^"
    position += negated
    ranges: list[str] = []
    while True:
        if position >= len(text):
            raise _malformed(text)
        if text[position] == "]" and ranges:
            break
        low, position = _class_char(text, position)
        high = low
        if text[position : position + 1] == "-":
            high, position = _class_char(text, position + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")  # an empty range, as in Go
    inside = "".join(ranges)
    if not inside:
        return ("[^/]" if negated else r"(?!)"), position + 1
    return (f"(?!/)[^{inside}]" if negated else f"(?!/)[{inside}]"), position + 1


def _class_char(text: str, position: int) -> tuple[str, int]:
    char = text[position : position + 1]
    if char in ("", "-", "]"):
        raise _malformed(text)
    if char == "\\":
        position += 1
        char = text[position : position + 1]
        if not char:
            raise _malformed(text)
    return char, position + 1


def _malformed(text: str) -> BadRequest:
    return BadRequest(f"invalid filter 'reference': syntax error in pattern {text!r}")


def matches(wanted: re.Pattern[str], reference: Reference) -> bool:
    """The familiar name with its tag or digest, or without."""
    return bool(wanted.fullmatch(reference.familiar) or wanted.fullmatch(reference.familiar_name))
