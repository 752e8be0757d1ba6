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

from imagebuild.trim import BUNDLE, trim

__all__ = ["CONTENTS", "freeze_tether"]

SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

CONTENTS = "tether.d"  # beside /init in the initramfs

# What runs first in the guest: modules come out of one file (imagebuild/trim.py), then the tether.
_ENTRY = """\
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads


class Bundle:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.modules = loads(file.read())

    def find_spec(self, name, path=None, target=None):
        found = self.modules.get(name)
        if found is None:
            return None
        spec = ModuleSpec(name, self, is_package=found[0])
        if found[0]:
            spec.submodule_search_locations = [sys.path[-1] + "/" + name.replace(".", "/")]
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(loads(self.modules.pop(module.__name__)[1]), module.__dict__)


sys.meta_path.insert(0, Bundle("/{bundle}"))

from tether.lean import install

install()

from tether.init import main

main()
"""

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
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    entry = work / "init.py"
    entry.write_text(_ENTRY.format(bundle=f"{CONTENTS}/{BUNDLE}"))
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
    trim(work / "dist" / "init" / CONTENTS)
    return work / "dist" / "init"
