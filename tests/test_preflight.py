"""What a machine lacks is said at once, all of it, each with its cure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools/preflight.sh"


def preflight(programs: Path, **answers: str) -> subprocess.CompletedProcess[str]:
    """Run it on a machine where the programs named by ``answers`` say something else."""
    programs.mkdir()
    for name, answer in answers.items():
        (programs / name).write_text(f"#!/bin/sh\n{answer}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=30)


def test_everything_is_said_at_once(tmp_path: Path) -> None:
    done = preflight(
        tmp_path / "bin",
        uname="echo riscv64",
        df="printf 'Avail\\n   7\\n'",
        awk="echo 100",
        modprobe="exit 1",
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any("this machine is riscv64" in line for line in lines)
    assert any("has 7 MB free and a VCH with its first images needs 500: make room" in line for line in lines)
    assert any("100 MB of memory are available" in line for line in lines)
    assert all(line.startswith("preflight: ") for line in lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="root lacks least")
def test_nothing_is_said_where_nothing_is_missing(tmp_path: Path) -> None:
    done = preflight(tmp_path / "bin", uname="echo x86_64", df="printf 'Avail\\n 99999\\n'", awk="echo 9999")
    lacking = [line for line in done.stderr.splitlines() if "/dev/" not in line]  # the test machine's own
    assert (lacking, done.stdout) == ([], "")
