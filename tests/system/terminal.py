"""A person at a terminal: a program on a pseudo-terminal, typed at and read from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType


class Terminal:
    """Runs ``command`` with a terminal of ``rows`` × ``columns``; use as a context manager."""

    def __init__(self, command: list[str], env: dict[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        self.output = b""
        self._seen = 0
        self._set_size(rows, columns)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str | bytes) -> None:
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str, *, seconds: float = 60) -> re.Match[bytes]:
        """Wait until ``pattern`` appears behind what was matched before."""
        wanted = re.compile(pattern.encode())
        deadline = time.monotonic() + seconds
        while (match := wanted.search(self.output, self._seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.output[self._seen :]!r}"
            if not select.select([self._master], [], [], left)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the program is gone
                data = b""
            assert data, f"ended without {pattern!r}: {self.output[self._seen :]!r}"
            self.output += data
        self._seen = match.end()
        return match

    def resize(self, rows: int, columns: int) -> None:
        self._set_size(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def wait(self, *, seconds: float = 60) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not select.select([self._master], [], [], 0.1)[0]:
                if self.process.poll() is not None:
                    break
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:
                break
            if not data:
                break
            self.output += data
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
