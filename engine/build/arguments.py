"""Build arguments: what was given, what a stage has declared, what RUN sees. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["BuildArguments"]

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
BUILTIN = frozenset((*_PROXIES, *(name.upper() for name in _PROXIES)))


class BuildArguments:
    def __init__(self, given: Mapping[str, str | None]) -> None:
        self._given = given
        self._meta: dict[str, str | None] = {}
        self._declared: dict[str, str | None] = {}
        self._referenced: set[str] = set()

    def begin_stage(self) -> None:
        self._declared = {}

    def declare_meta(self, name: str, default: str | None) -> None:
        """ARG before the first FROM."""
        self._referenced.add(name)
        self._meta[name] = default

    def declare(self, name: str, default: str | None) -> None:
        self._referenced.add(name)
        self._declared[name] = default

    def meta(self) -> dict[str, str]:
        """What FROM may use."""
        found = {}
        for name, default in self._meta.items():
            given = self._given.get(name)
            value = given if given is not None else default
            if value is not None:
                found[name] = value
        return found

    def allowed(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What the stage sees, the image's environment aside, which wins."""
        found: dict[str, str] = {}
        for name in sorted({*self._declared, *(BUILTIN & set(self._given))}):
            value = self._value(name)
            if value is not None and name not in environment:
                found[name] = value
        return found

    def _value(self, name: str) -> str | None:
        given = self._given.get(name)
        if given is not None:
            return given
        default = self._declared.get(name)
        return default if default is not None else self.meta().get(name)

    def counted(self, allowed: Mapping[str, str]) -> list[str]:
        """What of it makes a difference to the cache: all but proxies that nobody declared."""
        return [
            f"{name}={value}"
            for name, value in sorted(allowed.items())
            if name in self._referenced or name not in BUILTIN
        ]

    def unused(self) -> Sequence[str]:
        return sorted(name for name in self._given if name not in self._referenced and name not in BUILTIN)
