"""A Dockerfile as logical lines: directives read, comments dropped, continuations joined."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.dockerfile.errors import DockerfileError

__all__ = ["SIZE_LIMIT", "Line", "Source", "parse_source"]

SIZE_LIMIT = 1 << 20
_LINE_LIMIT = 65535  # Docker's own
_LINES_LIMIT = 20_000
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_KNOWN = ("escape", "syntax", "check")
_FLAG = re.compile(r"--\S+")
# the frontends whose language this is; what they have beyond it is refused where it stands
_FRONTENDS = re.compile(r"(?:docker\.io/)?docker/dockerfile:1(?:\.[0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Line:
    number: int  # of its first physical line
    text: str  # as "Step 1/2" shows it
    word: str  # the instruction, in upper case
    flags: tuple[str, ...]
    rest: str


@dataclass(frozen=True, kw_only=True)
class Source:
    escape: str
    lines: tuple[Line, ...]
    warnings: tuple[str, ...] = ()


def parse_source(data: bytes, *, name: str = "Dockerfile") -> Source:
    """Raises DockerfileError."""
    if len(data) > SIZE_LIMIT:
        raise DockerfileError(f"the Dockerfile ({name}) is larger than {SIZE_LIMIT} bytes")
    if not data:
        raise DockerfileError(f"the Dockerfile ({name}) cannot be empty")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    physical = [line.rstrip("\r") for line in text.split("\n")]
    if len(physical) > _LINES_LIMIT:
        raise DockerfileError(f"the Dockerfile ({name}) has more than {_LINES_LIMIT} lines")
    for number, line in enumerate(physical, 1):
        if len(line) > _LINE_LIMIT:
            raise DockerfileError(
                f"dockerfile line greater than maximum allowed size of {_LINE_LIMIT}", line=number
            )
    escape = _directives(physical)
    warnings: list[str] = []
    lines = tuple(_line(number, joined) for number, joined in _logical(physical, escape, warnings))
    if not lines:
        raise DockerfileError(f"failed to parse {name}: file with no instructions")
    return Source(escape=escape, lines=lines, warnings=tuple(warnings))


def _directives(physical: list[str]) -> str:
    """The escape character. Directives stand before everything else, each once."""
    found: dict[str, str] = {}
    for number, line in enumerate(physical, 1):
        match = _DIRECTIVE.fullmatch(line.strip())
        key = match[1].lower() if match else ""
        if match is None or key not in _KNOWN:
            break
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", line=number)
        found[key] = match[2]
        if key == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(
                f"invalid escape token '{match[2][:20]}' does not match ` or \\", line=number
            )
        if key == "syntax" and not _FRONTENDS.fullmatch(match[2]):
            raise DockerfileError(
                f"the syntax directive {match[2][:200]!r} requires BuildKit: "
                "use docker buildx with a docker-container builder",
                line=number,
            )
    return found.get("escape", "\\")


def _logical(physical: list[str], escape: str, warnings: list[str]) -> Iterator[tuple[int, str]]:
    """(first line's number, text) of everything that is not empty and no comment."""
    token = re.escape(escape)
    continued = re.compile(rf"(?:(?<!{token}){token}|^{token})[ \t]*$")
    joined: list[str] = []
    start = 0
    emptied = False
    for number, raw in enumerate(physical, 1):
        stripped = raw.lstrip(" \t")
        if stripped.startswith("#"):
            continue
        line = raw if joined else stripped
        if not line.strip():
            emptied |= bool(joined)
            continue
        body = continued.sub("", line)
        start = start or number
        joined.append(body)
        if body != line:
            continue
        yield from _complete(start, joined, emptied, warnings)
        joined, start, emptied = [], 0, False
    if joined:
        yield from _complete(start, joined, emptied, warnings)


def _complete(start: int, joined: list[str], emptied: bool, warnings: list[str]) -> Iterator[tuple[int, str]]:
    text = "".join(joined).strip()
    if emptied:
        warnings.append(
            f"[WARNING]: Empty continuation line found in:\n    {text}\n"
            "[WARNING]: Empty continuation lines will become errors in a future release."
        )
    if text:
        yield start, text


def _line(number: int, text: str) -> Line:
    word, *rest = text.split(maxsplit=1)
    arguments = rest[0] if rest else ""
    flags: list[str] = []
    while (match := _FLAG.match(arguments)) is not None:
        flags.append(match[0])
        arguments = arguments[match.end() :].lstrip()
        if match[0] == "--":
            break
    return Line(number=number, text=text, word=word.upper(), flags=tuple(flags), rest=arguments)
