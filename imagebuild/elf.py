"""Which shared libraries a host program needs, so that it also runs in the initramfs.

Only for programs from the builder's own packages: the answer comes from the
dynamic loader itself (``ldd``), which runs code of the program's loader.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MissingLibrary", "shared_libraries"]

_LINE = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+|not found)(?: \(0x[0-9a-f]+\))?$")


class MissingLibrary(Exception):
    """A program needs a library that this machine does not have."""


def shared_libraries(programs: Iterable[Path]) -> list[Path]:
    """Every library that ``programs`` load, the dynamic loader included, sorted."""
    found: set[Path] = set()
    for program in programs:
        result = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
        if "not a dynamic executable" in result.stdout + result.stderr:
            continue
        for line in result.stdout.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue  # linux-vdso
            if match["path"] == "not found":
                raise MissingLibrary(f"{program} needs {match['name']}, which is not installed")
            found.add(Path(match["path"]))
    return sorted(found)
