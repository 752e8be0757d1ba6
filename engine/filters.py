"""The ``filters`` query parameter: parsed, checked, matched. No I/O.

Two shapes are on the wire: ``{"name": ["a"]}`` and, from newer clients,
``{"name": {"a": true}}``. A filter that a resource does not know is refused by
name, as Docker does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping

from engine.http import BadRequest

__all__ = ["Filters"]

MAX_BYTES = 64 * 1024
MAX_VALUES = 1000


class Filters:
    """``self[name]`` is the tuple of wanted values, empty when the filter is absent."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = dict(values)

    @classmethod
    def parse(cls, text: str, allowed: Collection[str]) -> Filters:
        if not text:
            return cls({})
        if len(text) > MAX_BYTES:
            raise BadRequest("invalid filter: too long")
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise BadRequest("invalid filter") from None
        if raw is None:
            return cls({})
        if not isinstance(raw, dict):
            raise BadRequest("invalid filter")
        values: dict[str, tuple[str, ...]] = {}
        for name, wanted in raw.items():
            if name not in allowed:
                raise BadRequest(f"invalid filter '{name}'")
            if isinstance(wanted, dict):
                items = [key for key, on in wanted.items() if on is not False]
            elif isinstance(wanted, list):
                items = wanted
            else:
                raise BadRequest("invalid filter")
            if not all(isinstance(item, str) for item in items) or len(items) > MAX_VALUES:
                raise BadRequest(f"invalid filter '{name}'")
            values[name] = tuple(items)
        return cls(values)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._values.get(name, ())

    def __contains__(self, name: str) -> bool:
        return bool(self._values.get(name))

    def __bool__(self) -> bool:
        return any(self._values.values())

    def exact(self, name: str, value: str) -> bool:
        """Absent, or one of the wanted values is ``value``."""
        wanted = self[name]
        return not wanted or value in wanted

    def fuzzy(self, name: str, candidates: Iterable[str]) -> bool:
        """Absent, or some candidate matches a wanted value as a regular expression or contains it."""
        wanted = self[name]
        if not wanted:
            return True
        texts = list(candidates)
        return any(_matches(pattern, text) for pattern in wanted for text in texts)

    def prefix(self, name: str, value: str) -> bool:
        """Absent, or ``value`` starts with one of the wanted values (IDs)."""
        wanted = self[name]
        return not wanted or any(value.startswith(item) for item in wanted)

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """Every wanted ``key`` or ``key=value`` is there."""
        for item in self[name]:
            key, separator, value = item.partition("=")
            if key not in labels or (separator and labels[key] != value):
                return False
        return True

    def excluded_by_labels(self, labels: Mapping[str, str]) -> bool:
        """``label!=…`` (prune): some named label is there."""
        return any(self.parse_label(item, labels) for item in self["label!"])

    @staticmethod
    def parse_label(item: str, labels: Mapping[str, str]) -> bool:
        key, separator, value = item.partition("=")
        return key in labels and (not separator or labels[key] == value)

    def boolean(self, name: str) -> bool | None:
        """``None`` when absent; anything but one clear truth value is refused."""
        wanted = set(self[name])
        if not wanted:
            return None
        lowered = {item.lower() for item in wanted}
        if lowered <= {"1", "true", "t"}:
            return True
        if lowered <= {"0", "false", "f"}:
            return False
        raise BadRequest(f"invalid filter '{name}=[{' '.join(sorted(wanted))}]'")


def _matches(pattern: str, text: str) -> bool:
    if pattern in text:
        return True
    if len(pattern) > 256:  # a client's pattern runs in our loop
        raise BadRequest("invalid filter: pattern too long")
    if re.search(r"[*+?}]\)?[*+?{]|\([^)]*[*+{][^)]*\)[*+{]", pattern):
        raise BadRequest(f"invalid filter: nested repetition in {pattern!r}")
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return False
