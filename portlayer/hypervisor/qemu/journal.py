"""Files that QEMU appends to while we move and shorten them.

The journal is moved by name first; QEMU goes on writing to the moved file until
its chardev is pointed at the new one. QEMU itself switches between two writes,
so no byte is lost and none is written twice, and a kill between the steps leaves
an order that reads right: :func:`reopen` at the next attach ends it.
"""

from __future__ import annotations

import os
from pathlib import Path

from portlayer.hypervisor.qemu.monitor import Monitor
from portlayer.hypervisor.qemu.runtime import tail

__all__ = ["prune", "reopen", "shift", "trim"]

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


async def reopen(monitor: Monitor, path: Path) -> None:
    """Point the journal's chardev at ``path``, which exists and is QEMU's."""
    backend = {"type": "file", "data": {"out": str(path), "append": True}}
    await monitor.execute("chardev-change", id="journal", backend=backend)


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
