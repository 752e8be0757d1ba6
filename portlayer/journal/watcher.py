"""Wakes readers when a journal grows or is rotated: inotify, one instance for all.

One instance, because the kernel allows a user few of them; one kernel watch per
VM directory, shared by all readers of it. A wake-up is a hint: it may come
without news, it never stays away when there is some.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from struct import Struct
from types import TracebackType

__all__ = ["JournalWatcher", "Watch"]

# <sys/inotify.h>
_IN_MODIFY = 0x002
_IN_MOVED_FROM = 0x040
_IN_MOVED_TO = 0x080
_IN_CREATE = 0x100
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x01000000
_MASK = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_ONLYDIR
_EVENT = Struct("iIII")  # wd, mask, cookie, length of the name that follows
_NAME = b"journal"
_BUFFER = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """One reader's interest in one VM directory; a context manager."""

    def __init__(self, watcher: JournalWatcher, descriptor: int) -> None:
        self._watcher = watcher
        self._descriptor = descriptor
        self._event = asyncio.Event()
        self.gone = False  # the directory was removed: nothing will come any more

    def wake(self, *, gone: bool = False) -> None:
        self.gone = self.gone or gone
        self._event.set()

    async def changed(self) -> None:
        """Wait for news since the last call returned. At once when :attr:`gone`."""
        if not self.gone:
            await self._event.wait()
        self._event.clear()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.drop(self._descriptor, self)


class JournalWatcher:
    """Owns the inotify descriptor. :meth:`open` in the event loop that will serve the readers."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[Watch]] = {}

    def open(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _os_error("inotify_init1")
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        for watches in self._watches.values():
            for watch in watches:
                watch.wake(gone=True)
        self._watches.clear()

    def watch(self, directory: Path) -> Watch:
        """Watch the journals in ``directory``. OSError when it is not there."""
        descriptor = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
        if descriptor < 0:
            raise _os_error(f"inotify_add_watch {directory}")
        watch = Watch(self, descriptor)
        self._watches.setdefault(descriptor, set()).add(watch)
        return watch

    def drop(self, descriptor: int, watch: Watch) -> None:
        watches = self._watches.get(descriptor, set())
        if watch not in watches:
            return  # the kernel dropped the directory first, or we are closed
        watches.discard(watch)
        if not watches:
            del self._watches[descriptor]
            if _libc.inotify_rm_watch(self._fd, descriptor) < 0:
                raise _os_error("inotify_rm_watch")

    def _read(self) -> None:
        try:
            events = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        at = 0
        while at < len(events):
            descriptor, mask, _cookie, length = _EVENT.unpack_from(events, at)
            name = events[at + _EVENT.size : at + _EVENT.size + length]
            at += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                self._wake_all()
            elif mask & _IN_IGNORED:
                for watch in self._watches.pop(descriptor, set()):
                    watch.wake(gone=True)
            elif name.startswith(_NAME):
                for watch in self._watches.get(descriptor, set()):
                    watch.wake()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()


def _os_error(step: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{step}: {os.strerror(number)}")
