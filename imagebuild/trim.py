"""Reduce the frozen tether to what it imports, and put its modules into one file.

PyInstaller collects what might be imported. What is imported is known by
importing: everything else goes (10 MB of initramfs, 0.15 s of unpacking it
under TCG). And finding, opening and reading a module file costs the guest 2 ms
each; one file with all code objects costs it once.

A module that is first imported later on, in a rare branch, must be named in
:data:`LATE`: there is no other way in.
"""

from __future__ import annotations

import ast
import marshal
import subprocess
import sys
from pathlib import Path

from imagebuild.elf import drop_needed, shared_libraries

__all__ = ["BUNDLE", "LATE", "trim"]

BUNDLE = "bundle"
LATE = (
    "encodings.ascii",
    "encodings.latin_1",
    "traceback",
    "linecache",
    "tokenize",
    "token",
    "re",
    "textwrap",
)
_PYC_HEADER = 16  # PEP 552

# Prints {module: file} of everything that importing the tether imports.
_CENSUS = """
import sys
sys.path[:] = {paths!r}
from tether.lean import install
install()
import tether.init
import {late}
print({{module.__name__: getattr(module, "__file__", None) for module in sys.modules.values()}})
"""


def trim(contents: Path) -> None:
    """Work on PyInstaller's contents directory in place.

    Raises:
        RuntimeError: the tether cannot be imported from there.
    """
    files = _census(contents)
    modules: dict[str, tuple[bool, bytes]] = {}  # is a package, code
    kept: set[Path] = set()
    for name, file in sorted(files.items()):
        if file is None:
            continue  # built into the interpreter
        path = Path(file)
        if not path.is_relative_to(contents):
            # Our interpreter had it before it looked there; the guest's has nowhere else to look.
            place = contents / name.replace(".", "/")
            path = place / "__init__.pyc" if path.stem == "__init__" else place.with_suffix(".pyc")
            if not path.exists():
                continue  # compiled into the interpreter
        kept.add(path)
        if path.suffix == ".pyc":
            modules[name] = (path.stem == "__init__", path.read_bytes()[_PYC_HEADER:])
    # Version 2 has no back references, whose places depend on more than the content.
    (contents / BUNDLE).write_bytes(marshal.dumps(modules, 2))
    kept.add(contents / BUNDLE)
    extensions = [path for path in kept if ".so" in path.name]
    for path in extensions:
        drop_needed(path, "libstdc++.so.6")
    interpreter = next(contents.glob("libpython*.so*"))
    kept.add(interpreter)
    needed = {library.name for library in shared_libraries([*extensions, interpreter])}
    kept |= {path for path in contents.iterdir() if path.name in needed}
    # Of Python files, those stay that run before the bundle is there, and those are all of the library's.
    for path in sorted(contents.rglob("*"), reverse=True):
        ours = path.suffix == ".pyc" and path.relative_to(contents).parts[0] in (
            "tether",
            "archive",
            "google",
        )
        if path.is_file() and (path not in kept or ours):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _census(contents: Path) -> dict[str, str | None]:
    dynamic = next(contents.glob("python3.*/lib-dynload"))
    program = _CENSUS.format(paths=[str(contents), str(dynamic)], late=", ".join(LATE))
    # -S: no site directories; -OO as PyInstaller compiled; -B leaves no new files.
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-OO", "-B", "-c", program], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"the frozen tether cannot be imported:\n{result.stderr[-4000:]}")
    found: dict[str, str | None] = ast.literal_eval(result.stdout)
    return found
