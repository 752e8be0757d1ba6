"""Which VCHs this host has, found by their configuration files.

There is no registry besides the directories themselves: ``<base>/<name>/vch.json``
is a VCH, anything else is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from machine.errors import NoSuchVch, UsageProblem
from vch import VchConfig

__all__ = ["NAME", "Places"]

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,30}")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The two base directories: durable state, and sockets."""

    state: Path = Path("/var/lib/mooring")
    run: Path = Path("/run/mooring")

    def root(self, name: str) -> Path:
        return self.state / _checked(name)

    def config_file(self, name: str) -> Path:
        return self.root(name) / "vch.json"

    def exists(self, name: str) -> bool:
        return self.config_file(name).exists()

    def load(self, name: str) -> VchConfig:
        """
        Raises:
            NoSuchVch: no such directory, or one without a configuration.
        """
        path = self.config_file(name)
        if not path.exists():
            raise NoSuchVch(name)
        return VchConfig.load(path)

    def all(self) -> list[VchConfig]:
        return [VchConfig.load(path) for path in sorted(self.state.glob("*/vch.json"))]


def _checked(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise UsageProblem(
            f"{name!r} cannot name a virtual container host: at most 31 letters, digits, '-' and '_',"
            " beginning with a letter or digit"
        )
    return name
