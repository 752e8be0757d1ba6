"""The tether's own log: the last lines in memory for Diagnostics, the grave ones on the console as well.

The console is a slow serial port and the host keeps its tail for error
messages, so little goes there.
"""

from __future__ import annotations

import os
import time
from collections import deque

__all__ = ["Log"]

_KEEP = 512
_MAX_LINE = 1024


class Log:
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_KEEP)

    def note(self, text: str) -> None:
        """For whoever asks."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.lines.append(f"{uptime:.3f} {text[:_MAX_LINE]}")

    def say(self, text: str) -> None:
        """Also on the console."""
        self.note(text)
        os.write(1, f"{text[:_MAX_LINE]}\n".encode(errors="replace"))

    def exception(self, error: BaseException) -> None:
        """An exception that a callback let escape: where it came from, innermost last."""
        places = []
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        self.say(f"tether: {type(error).__name__}: {error} [{' > '.join(places[-6:])}]")
