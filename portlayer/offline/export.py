"""qemu-storage-daemon: VMDKs shown as plain files, through FUSE.

The daemon is driven by QMP on its standard streams. It dies with us
(parent-death signal), and quits in order when asked to: only then is
everything in the disk's file.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from portlayer.offline.programs import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Daemon", "DaemonError", "daemon_mark"]

_PROGRAM = "qemu-storage-daemon"
_COMMAND = [_PROGRAM, "--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]
_TIMEOUT = 60.0
_MAX_LINE = 1 << 20


def daemon_mark(marker: str) -> str:
    """The argument by which a daemon is found; an object without effect."""
    return json.dumps({"qom-type": "secret", "id": "mark", "data": marker})


class DaemonError(Exception):
    """qemu-storage-daemon refused or failed; the message is its own."""


class Daemon:
    """A running qemu-storage-daemon. ``marker`` goes into its command line, to be found by."""

    def __init__(self, marker: str) -> None:
        to_read, self._to = os.pipe2(os.O_CLOEXEC)
        self._from, to_write = os.pipe2(os.O_CLOEXEC)
        self._buffer = b""
        command = [*_COMMAND, "--object", daemon_mark(marker)]
        self.pid = spawn(command, streams=(to_read, to_write, -1))
        os.close(to_read)
        os.close(to_write)
        self._greeted = False
        self._events: list[dict[str, Any]] = []

    def add(self, name: str, disk: str, mountpoint: str, *, writable: bool, flush: bool) -> None:
        """Show ``disk`` at the existing regular file ``mountpoint``."""
        self._execute(
            "blockdev-add",
            {
                "driver": "vmdk",
                "node-name": name,
                "read-only": not writable,
                "file": {"driver": "file", "filename": disk, "cache": {"no-flush": not flush}},
            },
        )
        self._execute(
            "block-export-add",
            {"type": "fuse", "id": name, "node-name": name, "mountpoint": mountpoint, "writable": writable},
        )

    def remove(self, name: str) -> None:
        """Take an export away again; its disk is closed."""
        self._execute("block-export-del", {"id": name})
        self._wait_for("BLOCK_EXPORT_DELETED", name)
        self._execute("blockdev-del", {"node-name": name})

    def quit(self) -> None:
        """Close all disks and wait for the end.

        Raises:
            DaemonError: it did not end well; what it had to write may be lost.
        """
        self._execute("quit", {})
        os.close(self._to)
        while self._read():
            pass
        os.close(self._from)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if status != 0:
            raise DaemonError(f"{_PROGRAM} ended with status {os.waitstatus_to_exitcode(status)}")

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    # -- QMP

    def _execute(self, command: str, arguments: dict[str, Any]) -> None:
        if not self._greeted:
            self._greeted = True
            self._next()  # the greeting
            self._execute("qmp_capabilities", {})
        request = {"execute": command, "arguments": arguments}
        try:
            os.write(self._to, json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise DaemonError(f"{_PROGRAM} is gone") from None
        while True:
            message = self._next()
            if "return" in message:
                return
            if "error" in message:
                raise DaemonError(f"{_PROGRAM}: {message['error']['desc']}")
            self._events.append(message)

    def _wait_for(self, event: str, identity: str) -> None:
        """An event may come before the answer to the command that causes it."""
        while not any(one.get("event") == event and one["data"]["id"] == identity for one in self._events):
            self._events.append(self._next())
        self._events.clear()

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE or not self._read():
                raise DaemonError(f"{_PROGRAM} is gone")
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _read(self) -> bytes:
        deadline = time.monotonic() + _TIMEOUT
        while not select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]:
            if time.monotonic() >= deadline:
                raise DaemonError(f"{_PROGRAM} does not answer")
        data = os.read(self._from, 1 << 16)
        self._buffer += data
        return data
