"""`WWW-Authenticate` headers: which scheme a registry wants, and where its tokens come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Challenge", "parse_challenges"]

_LIMIT = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  RFC 9110's "token", no secret
_PARAMETER = re.compile(rf"({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))", re.ASCII)
_SCHEME = re.compile(rf"({_TOKEN})(?=\s|,|$)", re.ASCII)
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """``scheme`` is lower case ("bearer", "basic"); so are the parameters' names."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers. What cannot be read is left out: it cannot be answered anyway."""
    found: list[Challenge] = []
    for header in headers:
        found.extend(_parse(header[:_LIMIT]))
    return found


def _parse(text: str) -> Iterable[Challenge]:
    position = 0
    scheme = ""
    parameters: dict[str, str] = {}
    while position < len(text):
        if separator := _SEPARATORS.match(text, position):
            position = separator.end()
            continue
        if parameter := _PARAMETER.match(text, position):
            quoted, plain = parameter[2], parameter[3]
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
        elif word := _SCHEME.match(text, position):
            if scheme:
                yield Challenge(scheme=scheme, parameters=parameters)
            scheme, parameters = word[1].lower(), {}
            position = word.end()
        else:
            position += 1
    if scheme:
        yield Challenge(scheme=scheme, parameters=parameters)
