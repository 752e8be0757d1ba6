"""Files and directories that are there completely or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NEW", "new_directory", "publish", "remove", "sweep", "sync_directory", "write_file"]

NEW = ".new-"


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write, fsync, rename, fsync the directory."""
    temporary = path.with_name(f"{NEW}{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 # a descriptor
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextlib.contextmanager
def new_directory(parent: Path, *, mode: int = 0o710) -> Iterator[Path]:
    """A directory with a temporary name, for :func:`publish`; gone when the body raises."""
    path = parent / f"{NEW}{secrets.token_hex(8)}"
    path.mkdir(mode=mode)
    path.chmod(mode)
    try:
        yield path
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def publish(path: Path, target: Path) -> None:
    """Give a finished directory its name. Its files are synced already."""
    sync_directory(path)
    path.rename(target)
    sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a published directory: first its name, then its content."""
    doomed = path.with_name(f"{NEW}{secrets.token_hex(8)}")
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    sync_directory(path.parent)
    shutil.rmtree(doomed)


def sweep(parent: Path) -> None:
    """Remove what was never published, or removed half-way."""
    for path in parent.glob(f"{NEW}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
