"""Children of a predecessor that was killed: found by the work directory in their command lines.

They end by themselves when their input does; one that is stuck, or still busy
taking down, would hold our disks. So they are killed, and the loop devices
they had are waited for: mount, loop device and daemon go with the process
(``portlayer.offline``).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from portlayer.offline.export import daemon_mark

__all__ = ["kill_leftovers"]

_DEADLINE = 30.0
_WORKER = b"offline/__main__.py"


def kill_leftovers(work: Path) -> int:
    """Kill the children that use ``work``; returns how many there were.

    Raises:
        TimeoutError: one does not die, or its loop device stays.
    """
    loops = _loops(work)
    victims = _processes(work)
    for pid in victims:
        _kill(pid)
    deadline = time.monotonic() + _DEADLINE
    while _loops(work) & loops:
        if time.monotonic() > deadline:
            raise TimeoutError(f"loop devices below {work} are still in use")
        time.sleep(0.005)  # nobody announces this
    return len(victims)


def _processes(work: Path) -> list[int]:
    wanted = os.fsencode(work)
    mark = os.fsencode(daemon_mark(str(work)))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        is_worker = wanted in arguments and any(word.endswith(_WORKER) for word in arguments)
        if is_worker or mark in arguments:
            found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    """Kill and wait until it is gone (it is not our child)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], _DEADLINE)[0]:
            raise TimeoutError(f"process {pid} does not die")
    finally:
        os.close(handle)


def _loops(work: Path) -> set[str]:
    prefix = f"{work}/"
    found = set()
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile
            if entry.read_text(errors="surrogateescape").startswith(prefix):
                found.add(entry.parts[3])
    return found
