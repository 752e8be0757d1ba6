"""``.dockerignore`` patterns, as far as the daemon needs them: whether one path is left out. No I/O."""

from __future__ import annotations

import posixpath
import re

__all__ = ["excluded"]

_PATTERNS_LIMIT = 5000


def excluded(path: str, text: str) -> bool:
    """The last pattern that matches the path, or a directory above it, decides."""
    result = False
    parts = path.split("/")
    candidates = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for line in text.splitlines()[:_PATTERNS_LIMIT]:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        pattern = posixpath.normpath(pattern.removeprefix("!").strip()).lstrip("/")
        matcher = re.compile(_expression(pattern))
        if any(matcher.fullmatch(candidate) for candidate in candidates):
            result = not negated
    return result


def _expression(pattern: str) -> str:
    """Go's filepath.Match with ``**`` for any number of directories."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern[position : position + 1] == "*":
            position += 1
            if pattern[position : position + 1] == "/":
                position += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and "]" in pattern[position:]:
            end = pattern.index("]", position + 1) if pattern[position + 1 :].count("]") else position
            body = pattern[position:end].replace("\\", "\\\\")
            out.append(f"[{body}]" if body else re.escape("["))
            position = end + 1 if body else position
        elif char == "\\" and position < len(pattern):
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return "".join(out)
