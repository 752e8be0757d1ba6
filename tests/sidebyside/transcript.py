"""Run the script on a daemon; normalise what differs from run to run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.system.harness import Docker

__all__ = ["API", "PLACE", "Entry", "commands", "record"]

PLACE = Path(__file__).parent
SCRIPT = PLACE / "script.txt"
API = "1.41"
TIMEOUT = 120.0  # a command that takes longer hangs

_RULES = [
    (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b", "<id>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
    (r"(Up|Exited \(\d+\)) (Less than a second|About an? \w+|\d+ \w+)( ago)?", r"\1 <age>"),
    (r"\b\d+(\.\d+)? ?[kMG]?i?B\b", "<size>"),
    (r"/var/tmp/mooring[-\w./]*/", "<scratch>/"),
    (r"\b(?!127\.0\.0\.1\b|10\.9[123]\.)\d+\.\d+\.\d+\.\d+(:\d+)?", "<address>"),
    (r"time=\S+ level=\S+ ", ""),
    (r'"B","A=1"', '"A=1","B"'),  # the CLI sends variables in the order of a Go map,
    (r"\bc=d,a=b\b", "a=b,c=d"),  # and shows labels so
    (r"(?m)^[a-z]+_[a-z]+ busybox ", "<made up> busybox "),
]
_COMPILED = [(re.compile(pattern), text) for pattern, text in _RULES]


@dataclass(frozen=True, kw_only=True)
class Entry:
    command: str
    code: int
    out: str
    err: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def commands() -> list[str]:
    lines = (line.strip() for line in SCRIPT.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def record(docker: Docker, busybox: Path, scratch: Path) -> Iterator[Entry]:
    scratch.mkdir()
    for command in commands():
        line, _, given = command.partition(" << ")
        words = [
            word.replace("SCRATCH", str(scratch)).replace("BUSYBOX", str(busybox))
            for word in shlex.split(line)
        ]
        try:
            result = docker(*words, check=False, input=given, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            yield Entry(command=command, code=-1, out="", err="hangs")
            continue
        out, err = normal(result.stdout), normal(result.stderr)
        yield Entry(command=command, code=result.returncode, out=out, err=err)


def normal(text: str) -> str:
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("See 'docker", "Run 'docker")) and line)
