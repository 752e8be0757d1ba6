"""The container's cgroup: limits, members, and the kernel's word that memory ran out."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from tether import linux
from tether.resources import cgroup_files
from tether.tether_pb2 import Resources

__all__ = ["BASE", "CONTAINER", "Cgroup", "enable_controllers"]

BASE = "/sys/fs/cgroup"
CONTAINER = f"{BASE}/container"
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def enable_controllers() -> list[str]:
    """Hand every controller that the kernel has to the cgroups below the root; returns those it lacks."""
    present = read(f"{BASE}/cgroup.controllers").split()
    wanted = [name for name in _CONTROLLERS if name in present]
    write(f"{BASE}/cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))
    return [name for name in _CONTROLLERS if name not in present]


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="replace")
    finally:
        os.close(fd)


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise linux.SyscallError(error.errno or errno.EIO, "write", f"{path} {text.strip()}") from error
    finally:
        os.close(fd)


def flat_keyed(text: str) -> dict[str, int]:
    """ "key value" lines, as in memory.stat and cpu.stat."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            values[name] = int(value)
    return values


class Cgroup:
    """One cgroup by its path; it exists from `create` on."""

    def __init__(self, path: str, log: Callable[[str], None]) -> None:
        self.path = path
        self._log = log

    def create(self) -> None:
        os.makedirs(self.path, exist_ok=True)

    def limit(self, resources: Resources) -> None:
        """Set every limit.

        Raises:
            SyscallError: the kernel refuses one; earlier ones are in force.
        """
        if resources.oom_kill_disable:
            self._log("oom_kill_disable has no meaning with cgroup v2 and is discarded, as Docker does")
        for name, value, required in cgroup_files(resources):
            try:
                write(f"{self.path}/{name}", value)
            except OSError as error:
                if required:
                    raise
                self._log(f"this kernel has no {name}: {error}")

    def join(self) -> None:
        """Put the calling process in, or in the first leaf when systemd in there made it an inner node."""
        try:
            write(f"{self.path}/cgroup.procs", "0")
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EOPNOTSUPP):
                raise
            write(f"{self._first_leaf()}/cgroup.procs", "0")

    def _first_leaf(self) -> str:
        for directory, children, _ in os.walk(self.path):
            if not children:
                return directory
        raise linux.SyscallError(errno.EBUSY, "join", self.path)

    def pids(self) -> list[int]:
        """Every process in it and below."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            # A cgroup may go away, or be a threaded one whose processes its parent lists.
            with contextlib.suppress(OSError):
                found += [int(word) for word in read(f"{directory}/cgroup.procs").split()]
        return found

    def kill(self) -> None:
        write(f"{self.path}/cgroup.kill", "1")

    def oom_kills(self) -> int:
        return flat_keyed(read(f"{self.path}/memory.events")).get("oom_kill", 0)
