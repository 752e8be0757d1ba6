"""One QEMU process: started so that it outlives us, found again, watched, killed.

It is the leader of its own session, its input is /dev/null and its output a
file, so nothing that happens to us reaches it. We watch it through a pidfd: no
poll, and no signal to whoever got its number later.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Credentials", "QemuProcess", "find_by_name", "identity", "spawn", "start_time"]

NOFILE = 4096  # each disk holds one descriptor per layer of its chain
OOM_SCORE = 200  # the kernel takes a container VM before it takes a daemon
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def spawn(
    arguments: Sequence[str], *, credentials: Credentials, descriptors: Sequence[int], output: int
) -> int:
    """Start the program and return its pid. Blocks until it has been executed.

    Raises:
        OSError: it could not be executed.
    """
    child = subprocess.Popen(
        [*_limits(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=descriptors,
        start_new_session=True,
        cwd="/",
        env=ENVIRONMENT,
        **identity(credentials),
    )
    # The pidfd's owner reaps it. Left alone, Popen would complain that the child outlives it.
    child.returncode = 0
    return int(child.pid)


def identity(credentials: Credentials) -> dict[str, Any]:
    """How subprocess and asyncio are told whom to become; nothing when we are not root."""
    if os.geteuid() != 0:
        return {}
    return {"user": credentials.uid, "group": credentials.gid, "extra_groups": list(credentials.groups)}


def _limits() -> list[str]:
    """A program that sets limits and becomes the next one: setting another user's takes a capability more."""
    nofile = min(NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return ["prlimit", f"--nofile={nofile}:{nofile}", "--core=0:0", "--"]  # a core would hold guest secrets


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which ``pid`` started; None when there is no such live process.

    Together with the pid it names a process for the time the machine is up.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_named(pid: int, name: str) -> bool:
    """Whether ``pid`` was started with ``-name <name>``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    encoded = name.encode()
    return any(a == b"-name" and b == encoded for a, b in itertools.pairwise(words))


def find_by_name(name: str) -> int | None:
    """Search /proc: only for a process whose pid we had no time to write down."""
    for entry in Path("/proc").iterdir():
        if (
            entry.name.isdecimal()
            and is_named(int(entry.name), name)
            and start_time(int(entry.name)) is not None
        ):
            return int(entry.name)
    return None


class QemuProcess:
    """A running QEMU, ours or a former life's. Close it when done; closing does not end it."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        self._on_end: Callable[[], None] | None = None
        self.status: str | None = None  # how it ended, when it was our child
        asyncio.get_running_loop().add_reader(self._pidfd, self._readable)

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the process is gone, at once when it already is."""
        self._on_end = callback
        if self._ended.is_set():
            asyncio.get_running_loop().call_soon(callback)

    async def wait(self) -> None:
        await self._ended.wait()

    def kill(self) -> None:
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def volunteer(self) -> None:
        """Put it before the daemons when the kernel runs out of memory.

        Raises:
            OSError: the kernel refused; the process may be gone.
        """
        Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(OOM_SCORE))

    def close(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _readable(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.status = self._reap()
        self._ended.set()
        if self._on_end is not None:
            self._on_end()

    def _reap(self) -> str | None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None  # a former life's child: init reaps it, nobody tells us how it ended
        if result is None:
            return None
        if result.si_code == os.CLD_EXITED:
            return f"exit status {result.si_status}"
        return f"killed by {signal.Signals(result.si_status).name}"
