"""Writing so that a crash leaves the old file or the new one, whole.

A name starting with :data:`NEW` or :data:`GONE` is never a thing, only the
remains of a step that did not finish: whoever opens the directory sweeps it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["GONE", "NEW", "remove_directory", "sweep", "sync_directory", "write_file"]

NEW = ".new-"
GONE = ".gone-"


def write_file(path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write, fsync, rename, fsync the directory. Owner and mode are right before the name appears."""
    temporary = path.with_name(f"{NEW}{path.name}")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_directory(path: Path) -> None:
    """Take the name away in one step, then the content. Idempotent."""
    gone = path.with_name(f"{GONE}{path.name}")
    if gone.exists():  # a former removal did not finish, and the name was used again since
        shutil.rmtree(gone)
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    sync_directory(path.parent)
    shutil.rmtree(gone)


def sweep(directory: Path) -> list[str]:
    """Remove what unfinished steps left in ``directory``; returns the names."""
    swept = []
    for entry in directory.iterdir():
        if not entry.name.startswith((NEW, GONE)):
            continue
        swept.append(entry.name)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return swept
