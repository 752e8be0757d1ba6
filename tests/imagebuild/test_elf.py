"""Libraries that programs need, and one that is taken off the list."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from google._upb import _message  # type: ignore[attr-defined]

from imagebuild.elf import drop_needed, shared_libraries


def test_a_needless_library_is_taken_off_and_the_extension_still_works(tmp_path: Path) -> None:
    core = tmp_path / "_message.abi3.so"
    shutil.copy(_message.__file__, core)
    before = {path.name for path in shared_libraries([core])}
    assert "libstdc++.so.6" in before
    assert drop_needed(core, "libstdc++.so.6")
    assert {path.name for path in shared_libraries([core])} <= before - {"libstdc++.so.6", "libgcc_s.so.1"}
    assert not drop_needed(core, "libstdc++.so.6"), "it is gone"
    program = (
        "from importlib.machinery import ExtensionFileLoader as L; from importlib.util import *;"
        f"s = spec_from_loader('google._upb._message', L('google._upb._message', {str(core)!r}));"
        "m = module_from_spec(s); s.loader.exec_module(m); print(m.__file__)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(core)


def test_a_library_that_is_not_on_the_list_changes_nothing(tmp_path: Path) -> None:
    core = tmp_path / "core.so"
    shutil.copy(_message.__file__, core)
    content = core.read_bytes()
    assert not drop_needed(core, "libnothing.so")
    assert core.read_bytes() == content
