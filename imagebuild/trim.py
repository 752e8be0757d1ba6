"""Assemble what the guest runs: the interpreter itself, and the tether's modules in one file.

PyInstaller collects and compiles what might be imported. What is imported is
known by importing; nothing else goes in. Against PyInstaller's own program this
saves, under TCG:

* its launcher, which starts itself twice, loads a relocated libpython and sets
  up import hooks: 0.25 s. Debian's interpreter is one fixed-address program;
* finding and opening 130 module files at 2 ms each: :data:`BUNDLE` holds all
  code behind an index, and is read module by module;
* 20 MB of initramfs, 0.15 s of unpacking it.

All modules of our own go in, with what their functions import later on. One
that the library itself imports later on, in a rare branch, must be named in
:data:`LATE`: there is no other way in.
"""

from __future__ import annotations

import ast
import dis
import itertools
import marshal
import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType

from imagebuild.elf import drop_needed

__all__ = ["BUNDLE", "CONTENTS", "LATE", "assemble"]

CONTENTS = "tether.d"  # beside /init in the initramfs
BUNDLE = "bundle"
LATE = ("encodings.ascii", "encodings.latin_1")
_PYC_HEADER = 16  # PEP 552
_SIZE_BYTES = 4

# /init: isolated from the environment (-I), no site directories (-S), no files written (-B).
_INIT = """\
#!/{contents}/python -ISB
import gc

gc.disable()  # what is imported stays; the tether turns it on when it is ready

import sys
from _frozen_importlib import ModuleSpec
from marshal import loads
from posix import O_RDONLY, open, pread


class Bundle:
    def __init__(self, path):
        self.file = open(path, O_RDONLY)
        start = int.from_bytes(pread(self.file, {size_bytes}, 0), "little")
        self.modules = loads(pread(self.file, start, {size_bytes}))

    def find_spec(self, name, path=None, target=None):
        found = self.modules.get(name)
        if found is None:
            return None
        spec = ModuleSpec(name, self, is_package=found[0])
        if found[0]:  # extension modules of a package are files
            spec.submodule_search_locations = ["/{library}/" + name.replace(".", "/")]
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        _, place, size = self.modules[module.__name__]
        exec(loads(pread(self.file, size, place)), module.__dict__)


sys.meta_path.insert(0, Bundle("/{contents}/{bundle}"))

from tether.lean import install

install()

from tether.init import main

main()
"""

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


def assemble(collected: Path, target: Path) -> None:
    """Make ``init`` and :data:`CONTENTS` in ``target`` from PyInstaller's contents directory.

    Raises:
        RuntimeError: the tether cannot be imported from there.
    """
    contents = target / CONTENTS
    library = contents / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (library / "lib-dynload").mkdir(parents=True)
    modules: dict[str, tuple[bool, bytes]] = {}  # is a package, code
    for name, file in sorted(_census(collected).items()):
        if file is None:
            continue  # built into the interpreter
        path = Path(file)
        if ".so" in path.name:
            place = library / path.relative_to(collected).as_posix().replace(f"{library.name}/", "", 1)
            _copy_program(path, place)
            drop_needed(place, "libstdc++.so.6")
            continue
        early = not path.is_relative_to(collected)
        if early:  # our interpreter had it before it looked there, so the guest's wants it as a file
            place = collected / name.replace(".", "/")
            path = place / "__init__.pyc" if path.stem == "__init__" else place.with_suffix(".pyc")
            if not path.exists():
                continue  # compiled into the interpreter
            _copy(path, library / path.relative_to(collected))
        modules[name] = (path.stem == "__init__", path.read_bytes()[_PYC_HEADER:])
    (contents / BUNDLE).write_bytes(_bundle(modules))
    _copy(collected / "os.pyc", library / "os.pyc")  # how the interpreter knows its library
    _copy_program(Path(sys.executable).resolve(), contents / "python")
    init = target / "init"
    init.write_text(
        _INIT.format(
            contents=CONTENTS,
            bundle=BUNDLE,
            library=library.relative_to(target).as_posix(),
            size_bytes=_SIZE_BYTES,
        )
    )
    init.chmod(0o755)


def _bundle(modules: dict[str, tuple[bool, bytes]]) -> bytes:
    """The size of the index, the index ({name: (is a package, place, size)}), the code."""
    offsets = list(itertools.accumulate((len(code) for _, code in modules.values()), initial=0))

    def index(base: int) -> bytes:
        entries = {
            # numbers that marshal writes with the same size, wherever the code begins
            name: (package, base + offset, len(code))
            for (name, (package, code)), offset in zip(modules.items(), offsets, strict=False)
        }
        # Version 2 has no back references, whose places depend on more than the content.
        return marshal.dumps(entries, 2)

    size = len(index(0))
    code = b"".join(code for _, code in modules.values())
    return size.to_bytes(_SIZE_BYTES, "little") + index(_SIZE_BYTES + size) + code


def _census(collected: Path) -> dict[str, str | None]:
    dynamic = next(collected.glob("python3.*/lib-dynload"))
    late = set(LATE)
    for package in ("tether", "archive"):
        for path in (collected / package).rglob("*.pyc"):
            if path.stem != "__init__":
                late.add(".".join(path.relative_to(collected).with_suffix("").parts))
            late |= _imported_by_functions(marshal.loads(path.read_bytes()[_PYC_HEADER:]))  # noqa: S302 - our build
    program = _CENSUS.format(paths=[str(collected), str(dynamic)], late=", ".join(sorted(late)))
    # -OO as PyInstaller compiled.
    result = subprocess.run(
        [sys.executable, "-ISB", "-OO", "-c", program], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(f"the frozen tether cannot be imported:\n{result.stderr[-4000:]}")
    found: dict[str, str | None] = ast.literal_eval(result.stdout)
    return found


def _imported_by_functions(module: CodeType) -> set[str]:
    found: set[str] = set()
    inner = [constant for constant in module.co_consts if isinstance(constant, CodeType)]
    while inner:
        code = inner.pop()
        found |= {str(step.argval) for step in dis.get_instructions(code) if step.opname == "IMPORT_NAME"}
        inner += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_program(source: Path, target: Path) -> None:
    _copy(source, target)
    target.chmod(0o755)
