"""The end of the VM: nothing left running, everything on disk, power off. Bounded in time.

Unmounting runs in a child, so that a disk that does not answer cannot keep
PID 1 from cutting the power.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import NoReturn

from tether import linux
from tether.cgroup import Cgroup
from tether.loop import Loop

__all__ = ["PowerOff"]

_UNMOUNT_SECONDS = 20.0
_DIE_SECONDS = 5.0


class PowerOff:
    """Call `begin` once everything worth keeping is recorded."""

    def __init__(
        self, loop: Loop, cgroup: Cgroup, *, log: Callable[[str], None], power_off: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._cgroup = cgroup
        self._log = log
        self._power_off = power_off
        self._begun = False

    def begin(self, mount_points: list[str]) -> None:
        """Kill what is left of the container, write everything back, unmount and power off."""
        if self._begun:
            return
        self._begun = True
        try:
            pid = os.fork()
        except OSError as error:
            self._log(f"no child to unmount in: {error}")
            self._power_off()
            return
        if pid == 0:
            _finish(self._cgroup, mount_points)
        self._loop.on_child(pid, lambda _: self._power_off())
        self._loop.after(_UNMOUNT_SECONDS, self._power_off)


def cut_power() -> None:
    linux.reboot(linux.RB_POWER_OFF)


def _finish(cgroup: Cgroup, mount_points: list[str]) -> NoReturn:
    try:
        _kill_all(cgroup)
        for path in mount_points:
            try:
                _unmount(path)
            except OSError as error:  # the others must not suffer for it
                os.write(1, f"tether: {error}\n".encode())
    finally:
        os._exit(0)


def _kill_all(cgroup: Cgroup) -> None:
    """Kill the container's processes and wait until the kernel says that the cgroup is empty."""
    try:
        cgroup.kill()
        events = os.open(f"{cgroup.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # there never was a container
        return
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    while b"populated 1" in os.pread(events, 4096, 0):
        if not poll.poll(_DIE_SECONDS * 1000):
            return


def _unmount(path: str) -> None:
    try:
        # The last unmount writes back by itself; but is it the last? Somebody may hold the file system.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # it was never mounted
    try:
        linux.syncfs(fd, path)
    finally:
        os.close(fd)
    try:
        linux.umount(path)
    except OSError as error:
        if error.errno == errno.EBUSY:
            # Somebody holds it: at least nothing more can be written.
            linux.mount("", path, flags=linux.MS_REMOUNT | linux.MS_RDONLY)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
