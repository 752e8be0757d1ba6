"""Host tools as children that die with us. (The subprocess module costs more time than the tools.)"""

from __future__ import annotations

import os
import signal

from portlayer.offline.kernel import die_with_parent

__all__ = ["ProgramError", "run", "spawn"]


class ProgramError(Exception):
    """A tool failed; the message is its own."""


def spawn(
    command: list[str], *, streams: tuple[int, int, int], environment: dict[str, str] | None = None
) -> int:
    """Start ``command`` with these three descriptors as 0, 1 and 2 (-1 = ours); returns its pid."""
    us = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        die_with_parent(signal.SIGKILL, us)
        for wanted, fd in enumerate(streams):
            if fd >= 0:
                os.dup2(fd, wanted)
        if environment is None:
            os.execvp(command[0], command)  # noqa: S606 # no shell on purpose
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def run(command: list[str]) -> None:
    """Run a tool to its end.

    Raises:
        ProgramError: it failed.
    """
    words = os.memfd_create("words")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "MKE2FS_CONFIG": "/dev/null"}
        pid = spawn(command, streams=(null, words, words), environment=environment)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            said = os.pread(words, 2000, 0).decode("utf-8", "replace").strip()
            raise ProgramError(f"{command[0]}: {said or f'status {os.waitstatus_to_exitcode(status)}'}")
    finally:
        os.close(null)
        os.close(words)
