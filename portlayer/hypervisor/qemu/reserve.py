"""Room for the few kilobytes that must be written on a full disk.

To remove or stop a container is to write that down first. On a disk without a
free block neither would work, and nothing else frees any. So some room is held
back and lent to such a write: it replaces a file of its size, so the room comes
back with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Reserve"]

SIZE = 256 << 10  # the largest config.json several times over
_log = logging.getLogger(__name__)


class Reserve:
    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Hold the room back, or as soon as there is some: callers ask again now and then."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size < SIZE:
                os.posix_fallocate(descriptor, 0, SIZE)
        except OSError as error:
            _log.warning("no room can be held back for a full disk: %s", error)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the disk has the reserve's room."""
        os.truncate(self._path, 0)
        try:
            yield
        finally:
            self.fill()
