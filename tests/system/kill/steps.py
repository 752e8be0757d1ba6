"""Finds and counts every persisted step of a process by itself, and kills at the one that is asked for.

The interpreter announces each rename, unlink, mkdir, new file, child process and
netlink request to its audit hooks *before* it happens. So nothing in the
production code knows about this, no list of steps can go stale, and a step that
somebody adds tomorrow is in the matrix by itself. A kill before step N+1 is a
kill after step N.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

__all__ = ["Steps", "install"]

_LAYOUT = struct.Struct(
    "<QQQQ"
)  # steps so far, the step to kill at (0: none), another victim's pid, ourselves
_CHANGES = {
    "os.rename": 1,  # which argument is the path that matters
    "os.link": 1,
    "os.symlink": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.mkdir": 0,
    "os.truncate": 0,
}
_TAP_REQUESTS = (0x400454CA, 0x400454CB)  # TUNSETIFF, TUNSETPERSIST: linux/if_tun.h


class Steps:
    """The test's end: a counter shared with the process, and the trace it writes."""

    def __init__(self, directory: Path) -> None:
        self.counter = directory / "steps"
        self.trace = directory / "steps.trace"
        self.counter.write_bytes(bytes(mmap.PAGESIZE))
        self.trace.touch()
        with self.counter.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._trace_start = 0

    def arm(self, target: int = 0, *, other: int = 0, ourselves: bool = True) -> None:
        """Count from here; before step ``target`` (the first is 1) kill process ``other``, ``ourselves``, or both."""
        self._trace_start = self.trace.stat().st_size
        _LAYOUT.pack_into(self._memory, 0, 0, target, other, ourselves)

    def reached(self) -> bool:
        """Whether the step to kill at has come: then the victims are dying."""
        count, target, _, _ = _LAYOUT.unpack_from(self._memory)
        return bool(count >= target > 0)

    def disarm(self) -> list[str]:
        """The steps since :meth:`arm`; nothing is killed from here on."""
        _LAYOUT.pack_into(self._memory, 0, 0, 0, 0, 0)
        with self.trace.open() as file:
            file.seek(self._trace_start)
            return file.read().splitlines()


def install(directory: Path, roots: tuple[Path, ...]) -> None:
    """In the process whose steps count. ``roots``: where its changes count."""
    with (directory / "steps").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    trace = os.open(directory / "steps.trace", os.O_WRONLY | os.O_APPEND)
    prefixes = tuple(f"{root}/" for root in roots)
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:  # our own doings
            return
        step = _describe(event, arguments, prefixes)
        if step is None:
            return
        busy = True
        try:
            count, target, other, ourselves = _LAYOUT.unpack_from(memory)
            _LAYOUT.pack_into(memory, 0, count + 1, target, other, ourselves)
            os.write(trace, f"{count + 1} {step}\n".encode())
            if count + 1 == target:
                if other:
                    os.kill(other, signal.SIGKILL)
                if ourselves:
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            busy = False

    sys.addaudithook(hook)


def _describe(event: str, arguments: tuple[Any, ...], prefixes: tuple[str, ...]) -> str | None:
    """The step in words, ``None`` when it changes nothing that a restart would find."""
    if event in _CHANGES:
        path = _absolute(arguments[_CHANGES[event]], arguments[-1])
        return f"{event} {path}" if path.startswith(prefixes) else None
    if event == "open":
        path = _absolute(arguments[0], -1)
        creates = arguments[2] & (os.O_CREAT | os.O_TRUNC)
        return f"create {path}" if creates and path.startswith(prefixes) else None
    if event == "subprocess.Popen":
        return f"run {' '.join(_text(word) for word in arguments[1][:3])}"
    if event in ("socket.sendto", "socket.sendmsg"):
        return "netlink" if arguments[0].family == socket.AF_NETLINK else None
    if event == "fcntl.ioctl":
        return f"ioctl {arguments[1]:#x}" if arguments[1] in _TAP_REQUESTS else None
    if event == "socket.bind" and arguments[0].family == socket.AF_UNIX:
        return f"bind {_text(arguments[1])}"
    return None


def _absolute(path: Any, directory: Any) -> str:
    text = _text(path)
    if not text.startswith("/") and isinstance(directory, int) and directory >= 0:
        with contextlib.suppress(OSError):
            return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), text)
    return text


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else str(value)
