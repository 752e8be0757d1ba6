"""Wait for hardware by the kernel's own announcements (netlink KOBJECT_UEVENT), never by sleeping.

Open first, then look, then wait: what appears in between is not missed.
"""

from __future__ import annotations

import _socket  # not socket: its import turns hundreds of constants into enums, 60 ms under TCG
import errno
import select
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Uevents"]

_NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
_KERNEL_GROUP = 1
# A device's node is there before its size is: looked at again so soon without an event.
_LOOK_AGAIN_MS = 5

T = TypeVar("T")


class Uevents:
    """The kernel's announcements. Close it when the hardware is there."""

    def __init__(self) -> None:
        self._socket = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT
        )
        self._socket.bind((0, _KERNEL_GROUP))

    def wait_for(self, look: Callable[[], T | None], *, seconds: float) -> T | None:
        """The first answer of ``look`` but None; it is asked again at every announcement. None when late."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                return None
            if poll.poll(_LOOK_AGAIN_MS):
                self._drain()

    def _drain(self) -> None:
        while True:
            try:
                if not self._socket.recv(65536, _socket.MSG_DONTWAIT):
                    return
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        self._socket.close()
