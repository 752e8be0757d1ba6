"""The guest's journal port: records in order, nothing dropped, nobody blocked.

Life-cycle records are always taken. Output is taken while there is `room`;
its pumps stop reading their pipes otherwise, so that a slow port slows the
workload down instead of losing its words.
"""

from __future__ import annotations

from collections.abc import Callable

from tether.journal import Kind
from tether.loop import Loop

__all__ = ["Recorder"]


class Recorder:
    def __init__(self, loop: Loop, fd: int, *, limit: int = 256 * 1024) -> None:
        """Write to ``fd`` (port, raw tty or file; made non-blocking); hold about ``limit`` bytes."""
        raise NotImplementedError

    def boot(self, nonce: bytes) -> None:
        """The first record of this boot."""
        raise NotImplementedError

    def record(self, kind: Kind, body: bytes) -> None:
        """A life-cycle record; ``body`` is the serialized message of its kind (see Kind)."""
        raise NotImplementedError

    def output(self, stream: int, data: bytes) -> None:
        """Bytes of the main process: ``stream`` is journal.STDOUT or STDERR. Ask `room` first."""
        raise NotImplementedError

    @property
    def room(self) -> bool:
        raise NotImplementedError

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call once as soon as there is room (at once from the loop if there is)."""
        raise NotImplementedError

    def when_flushed(self, callback: Callable[[], None]) -> None:
        """Call once when everything recorded so far has been handed to the port."""
        raise NotImplementedError
