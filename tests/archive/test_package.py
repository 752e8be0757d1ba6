"""Promises of the package as a whole."""

import subprocess
import sys
from pathlib import Path

import archive

ROOT = Path(archive.__file__).resolve().parent.parent


def test_import_loads_nothing_but_what_the_docstring_allows() -> None:
    script = (
        "import sys, os, errno, stat, struct, __future__; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); "
        "import archive; print(*(set(sys.modules) - before))"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, ROOT], capture_output=True, text=True, check=True
    ).stdout
    assert [name for name in out.split() if name.partition(".")[0] != "archive"] == []


def test_public_surface_is_listed() -> None:
    public = {name for name in vars(archive) if not name.startswith("_")}
    modules = {path.stem for path in ROOT.joinpath("archive").glob("*.py")}
    assert public - modules == set(archive.__all__)
