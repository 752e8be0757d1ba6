"""Which shared libraries a host program needs, so that it also runs in the initramfs.

Only for programs from the builder's own packages: the answer comes from the
dynamic loader itself (``ldd``), which runs code of the program's loader.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MissingLibrary", "drop_needed", "shared_libraries"]

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


# elf.h, 64-bit little endian
_PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")  # e_phoff, e_phentsize, e_phnum
_PROGRAM_HEADER = struct.Struct("<IIQQQQ")  # type, flags, offset, virtual address, physical, file size
_DYNAMIC = struct.Struct("<QQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_DEBUG = 1, 5, 21


def drop_needed(path: Path, library: str) -> bool:
    """Take one entry off an extension's list of needed libraries; False when it is not on it.

    For protobuf's C core: it names libstdc++ and uses nothing of it, and
    loading that is 2 MB and 20 ms of every boot. The entry becomes one that
    the loader ignores in shared objects.
    """
    data = bytearray(path.read_bytes())
    offset, size, count = _PROGRAM_HEADERS.unpack_from(data)
    headers = [_PROGRAM_HEADER.unpack_from(data, offset + size * number) for number in range(count)]
    dynamic = next(header for header in headers if header[0] == _PT_DYNAMIC)
    entries = list(range(dynamic[2], dynamic[2] + dynamic[5], _DYNAMIC.size))
    values = dict(_DYNAMIC.unpack_from(data, at) for at in entries)
    load = next(h for h in headers if h[0] == _PT_LOAD and h[3] <= values[_DT_STRTAB] < h[3] + h[5])
    strings = values[_DT_STRTAB] - load[3] + load[2]
    wanted = library.encode() + b"\0"
    for at in entries:
        tag, value = _DYNAMIC.unpack_from(data, at)
        if tag == _DT_NEEDED and data[strings + value : strings + value + len(wanted)] == wanted:
            _DYNAMIC.pack_into(data, at, _DT_DEBUG, 0)
            path.write_bytes(data)
            return True
    return False
