"""Writes back while the archive still comes, so that the end has less to wait for.

A thread of its own because ``syncfs`` blocks; what it reports does not matter:
the session's own ``syncfs`` at the end sees every error since the mount.
"""

from __future__ import annotations

import _thread
import os

from portlayer.offline import kernel

__all__ = ["Flusher"]

_STEP = 16 << 20  # bytes between two write-backs


class Flusher:
    """Writes back ``directory``'s file system, then starts ``disk``'s way to the medium."""

    def __init__(self, directory: int, disk: str) -> None:
        self._directory = directory
        self._disk = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        self._pending = 0
        self._stopping = False
        self._work = _thread.allocate_lock()  # released = there is something to do
        self._work.acquire()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._run, ())

    def wrote(self, count: int) -> None:
        self._pending += count
        if self._pending >= _STEP and self._work.locked():
            self._pending = 0
            self._work.release()

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stopping = True
        if self._work.locked():
            self._work.release()
        self._done.acquire()
        os.close(self._disk)

    def _run(self) -> None:
        try:
            while True:
                self._work.acquire()
                if self._stopping:
                    return
                try:
                    kernel.sync_file_system(self._directory)
                    kernel.start_write_back(self._disk)
                except OSError:
                    return  # reported at the end
        finally:
            self._done.release()
