"""Which Linux a kernel image is, read from the image: for `docker info`."""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path

__all__ = ["kernel_release"]

_BOOT_MAGIC = (0x202, b"HdrS")  # Documentation/x86/boot.rst
_VERSION_POINTER = 0x20E
_SECTOR = 0x200
_BANNER = re.compile(rb"Linux version ([0-9][\w.+~-]{0,80})")


def kernel_release(image: Path) -> str:
    """``uname -r`` of the guests, or "" when the image does not say."""
    with image.open("rb") as file:
        head = file.read(0x4000 + 0x300)
        at, magic = _BOOT_MAGIC
        if head[at : at + 4] == magic:
            (pointer,) = struct.unpack_from("<H", head, _VERSION_POINTER)
            start = pointer + _SECTOR
            file.seek(start)
            words = file.read(100).split(b"\0")[0].split()
            return words[0].decode(errors="replace") if words else ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _BANNER.search(content)
            return found[1].decode() if found else ""
