"""Freeze the tether with PyInstaller into a directory that runs as /init.

One directory, not one file: a one-file program unpacks itself at every boot.
Modules stay uncompressed (``noarchive``) because inflating costs more under
emulation than reading. Docstrings and asserts go (``optimize 2``).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from imagebuild.trim import CONTENTS, assemble

__all__ = ["freeze_tether"]

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


# Standard library parts that dependencies of the tether pull in but never run
# in the guest: each costs space, some cost start-up time. PyInstaller imports
# inspect at every start if it is there: 0.2 s under emulation.
_EXCLUDED = (
    "asyncio",
    "bz2",
    "distutils",
    "email",
    "http",
    "inspect",
    "lzma",
    "multiprocessing",
    "pydoc",
    "sqlite3",
    "ssl",
    "tkinter",
    "unittest",
    "xml",
)


def freeze_tether(root: Path, work: Path) -> Path:
    """Return the directory holding ``init`` and :data:`CONTENTS`.

    Args:
        root: the source tree with the package ``tether``.
        work: scratch directory; what was there before goes.

    Raises:
        RuntimeError: PyInstaller failed; its last words are in the message.
    """
    work = work.resolve()  # the census names modules by their whole paths
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    entry = work / "init.py"
    entry.write_text("from tether.init import main\n\nmain()\n")
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--onedir", "--strip"]
    command += ["--name", "init", "--contents-directory", CONTENTS, "--optimize", "2", "--debug", "noarchive"]
    command += ["--log-level", "WARN", "--paths", str(root)]
    command += ["--distpath", str(work / "dist"), "--workpath", str(work / "build"), "--specpath", str(work)]
    for module in _EXCLUDED:
        command += ["--exclude-module", module]
    # A fixed hash seed and time stamp make the frozen modules the same in every build.
    # Nothing else of the builder's environment gets in.
    environment = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "0", "HOME": str(work), "PATH": SEARCH_PATH}
    result = subprocess.run(
        [*command, str(entry)], capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"PyInstaller could not freeze the tether:\n{result.stderr[-4000:]}")
    assemble(work / "dist" / "init" / CONTENTS, work / "tether")
    return work / "tether"
