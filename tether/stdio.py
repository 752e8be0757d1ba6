"""Standard streams of the main process and of execs, and who is attached to them.

The main process's output goes to the journal, all of it: when the journal port
is slow its pipes are read slower. Whoever attaches to it on the channel as well
costs it nothing, and may lose bytes (counted). An exec's output goes to a ring
per stream and from there to the attached reader, who resumes by offset; while
there is a reader, or one is expected, the ring never overwrites what he has not
got.

``EXITED`` is the last thing a reader sees: it follows all output.
"""

from __future__ import annotations

from collections.abc import Callable

from tether.events import EventLog
from tether.loop import Loop
from tether.recorder import Recorder
from tether.server import Server
from tether.tether_pb2 import ExecState

__all__ = ["Sessions"]

MAIN = ""  # the main process's exec ID


class Sessions:
    def __init__(
        self,
        loop: Loop,
        recorder: Recorder,
        events: EventLog | None = None,
        *,
        ring: int = 1 << 20,
    ) -> None:
        """``ring``: bytes of each exec stream kept for its reader."""
        raise NotImplementedError

    def register(self, server: Server) -> None:
        """Serve Attach and ExecList."""
        raise NotImplementedError

    def start_main(
        self,
        *,
        pid: int,
        stdin_fd: int | None = None,
        stdout_fd: int | None = None,
        stderr_fd: int | None = None,
        pty_fd: int | None = None,
        on_drained: Callable[[], None] | None = None,
    ) -> None:
        """The main process runs. The descriptors are pipe ends, or the pty's master: ours from now on.

        ``on_drained`` is called once, after `exited` and after the last byte of
        its output has been handed to the journal port: then record EXITED.
        """
        raise NotImplementedError

    def start_exec(
        self,
        exec_id: str,
        *,
        pid: int,
        stdin_fd: int | None = None,
        stdout_fd: int | None = None,
        stderr_fd: int | None = None,
        pty_fd: int | None = None,
    ) -> None:
        """An exec runs; descriptors as for `start_main`. Its pipes are read at once.

        Raises:
            ValueError: that ID is known; look with `state` first.
        """
        raise NotImplementedError

    def exited(self, exec_id: str, *, exit_code: int, error: str = "") -> None:
        """The process has ended ("" is the main process); ``exit_code`` is 128 + signal when killed.

        An exec's end is published as an event and recorded; its state is kept
        for the last 256 of them. Descriptors close when they are drained.
        """
        raise NotImplementedError

    def failed(self, exec_id: str, *, exit_code: int, error: str) -> None:
        """An exec never started: remember it as finished, so that its ID answers."""
        raise NotImplementedError

    def state(self, exec_id: str) -> ExecState | None:
        """What is known of an exec (or of the main process, ""): running, or one of the last to finish."""
        raise NotImplementedError

    @property
    def running(self) -> int:
        """Execs that run now."""
        raise NotImplementedError

    def resize(self, exec_id: str, *, rows: int, columns: int) -> None:
        """Set a pty's size; the workload gets SIGWINCH.

        Raises:
            KeyError: no such process.
            ValueError: it has no pty.
        """
        raise NotImplementedError
