"""Hold the file systems still for a snapshot (FIFREEZE), and let go by ourselves when the host forgets.

Freezing waits for dirty pages, so it runs in a child. Thawing is at once, and
is also what a failed freeze ends in: all file systems are frozen, or none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable
from typing import NoReturn

from tether import linux
from tether.become import Failure
from tether.loop import Loop, Timer
from tether.spawn import OWN_NAMESPACE, Channels, close_ends, fork_child, open_channels, read_report

__all__ = ["Freezer"]

_LONGEST = 300.0
_DEFAULT = 60.0


class Freezer:
    def __init__(self, loop: Loop, *, log: Callable[[str], None]) -> None:
        self._loop = loop
        self._log = log
        self._frozen: list[str] = []
        self._timer: Timer | None = None

    @property
    def frozen(self) -> bool:
        return bool(self._frozen)

    def freeze(
        self, mount_points: list[str], *, seconds: float, done: Callable[[Failure | None], None]
    ) -> None:
        """Freeze all, or none; ``done`` is told. Thawed after ``seconds`` at the latest."""
        ours, theirs = open_channels(tty=False, stdin=False)

        def body(_: Channels) -> NoReturn:
            _freeze_all(mount_points)
            os._exit(0)

        spawned = fork_child(body, ours, theirs, pid_namespace=OWN_NAMESPACE)
        close_ends(spawned)
        self._frozen = list(mount_points)
        self._arm(min(seconds or _DEFAULT, _LONGEST))

        def reported(_: int) -> None:
            self._loop.remove(spawned.report)
            failure = read_report(spawned.report)
            os.close(spawned.report)
            if failure is not None:
                self.thaw()
            done(failure)

        self._loop.add(spawned.report, select.EPOLLIN, reported)

    def thaw(self) -> None:
        """Let go of everything; no error when nothing is frozen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for path in self._frozen:
            try:
                _ioctl(path, linux.FITHAW)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it was not frozen
                    self._log(f"thaw {path}: {error}")
        self._frozen = []

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.after(seconds, self._expired)

    def _expired(self) -> None:
        self._log("file systems thawed: nobody did it in time")
        self.thaw()


def _freeze_all(mount_points: list[str]) -> None:
    for path in mount_points:
        try:
            _ioctl(path, linux.FIFREEZE)
        except OSError as error:
            # Frozen already; read-only, which is still by nature; or the host's, which is not ours to hold.
            if error.errno not in (errno.EBUSY, errno.EROFS, errno.EOPNOTSUPP):
                raise Failure(f"freeze {path}: {os.strerror(error.errno or errno.EIO)}") from error


def _ioctl(path: str, request: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, 0)
    finally:
        os.close(fd)
