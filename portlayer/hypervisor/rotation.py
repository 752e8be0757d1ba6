"""Files that a hypervisor appends to while we move, shorten and read them.

The journal is moved by name first; its writer goes on writing to the moved file
until it is pointed at the new one. Both back ends do that last step in their own
way (``qemu``: chardev-change, ``vsphere``: an edit of the serial port).
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["prune", "shift", "tail", "trim"]

TRIM_AT = 4 << 20
TRIM_TO = 256 << 10


def shift(path: Path, keep: int) -> None:
    """Move ``<path>.1`` to ``.2`` and so on, then the file itself to ``.1``; drop what is beyond ``keep``."""
    numbers = sorted(_numbers(path), reverse=True)
    for number in numbers:
        source = _numbered(path, number)
        if number > keep:
            source.unlink()
        else:
            source.rename(_numbered(path, number + 1))
    path.rename(_numbered(path, 1))


def prune(path: Path, keep: int) -> None:
    """Remove the files beyond ``keep``: after the switch, so that the newest was never without a name."""
    for number in _numbers(path):
        if number > keep:
            _numbered(path, number).unlink()


def trim(path: Path) -> None:
    """Keep the end of a file that grew beyond bounds. Its writer appends, so it goes on behind that."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size <= TRIM_AT:
        return
    end = tail(path, TRIM_TO)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"[shortened]\n" + end)
    finally:
        os.close(descriptor)


def _numbers(path: Path) -> list[int]:
    prefix = f"{path.name}."
    suffixes = (
        entry.name.removeprefix(prefix) for entry in path.parent.iterdir() if entry.name.startswith(prefix)
    )
    return [int(suffix) for suffix in suffixes if suffix.isdecimal()]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def tail(path: Path, limit: int) -> bytes:
    """The last ``limit`` bytes of a file; nothing when it is not there."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - limit))
            return file.read(limit)
    except FileNotFoundError:
        return b""
