"""The event loop of PID 1: epoll, timers, child processes. Everything runs on one thread.

Not asyncio: importing it costs a container VM 0.4 s and 8 MB (measured under
TCG), and PID 1 needs one thing asyncio does badly, reaping every child there
is, including orphans it never started.

Invariant: an exception in a callback is reported to ``on_error`` and costs that
callback only. PID 1 must not die: the kernel would panic.

Because the loop reaps with ``waitpid(-1)``, nothing else in the process may
wait for children: no ``subprocess.run``. Start a process, register `on_child`
(in the same callback or later: the status of a recently reaped child is kept).
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

__all__ = ["Loop", "Timer"]

_BATCH = 64  # descriptors handled before timers get a look
_REMEMBERED = 256  # reaped children nobody had asked about


class Timer:
    """A callback that is due once; `cancel` makes it never happen."""

    __slots__ = ("_callback", "_due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self._due = due
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def __lt__(self, other: Timer) -> bool:
        return self._due < other._due


class Loop:
    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        """``on_error`` is told every exception that a callback let escape."""
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._soon: list[Timer] = []
        self._children: dict[int, Callable[[int], None]] = {}
        self._reaped: dict[int, int] = {}  # oldest first
        self._signals: dict[int, Callable[[], None]] = {}
        self._old_handlers: dict[int, object] = {}
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup: int | None = None
        self.add(self._wake_read, select.EPOLLIN, self._woken)

    # -- file descriptors
    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready_events)`` while ``fd`` is ready for ``events`` (select.EPOLLIN, …).

        EPOLLHUP and EPOLLERR are always reported. Add select.EPOLLET for
        descriptors whose hang-up lasts.

        Raises:
            PermissionError: a regular file, which is always ready and cannot be watched.
        """
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events; 0 mutes all but hang-up and error."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget ``fd``: do this before closing it. No callback for it runs any more. Idempotent."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # -- time
    def soon(self, callback: Callable[[], None]) -> Timer:
        """Call after the callbacks that run now, before waiting again."""
        timer = Timer(0, callback)
        self._soon.append(timer)
        return timer

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    # -- processes and signals
    def on_child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(wait_status)`` once when ``pid`` has ended (os.waitstatus_to_exitcode reads it)."""
        self._install(signal.SIGCHLD)
        status = self._reaped.pop(pid, None)
        if status is not None:
            self.soon(lambda: callback(status))
            return
        if not self._children:
            self.soon(self._reap)  # one may have ended before we were listening
        self._children[pid] = callback

    def forget_child(self, pid: int) -> None:
        """The child's end is no longer of interest; it is reaped all the same."""
        self._children.pop(pid, None)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Handle a signal in the loop. SIGCHLD is the loop's own."""
        if number == signal.SIGCHLD:
            raise ValueError("SIGCHLD is the loop's own")
        self._signals[number] = callback
        self._install(number)

    def _install(self, number: int) -> None:
        if number in self._old_handlers:
            return
        if self._old_wakeup is None:
            # A full pipe has woken us already: no warning needed.
            self._old_wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._old_handlers[number] = signal.signal(number, _nothing)

    def _woken(self, _: int) -> None:
        try:
            numbers = set(os.read(self._wake_read, 4096))
        except BlockingIOError:
            return
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            callback = self._signals.get(number)
            if callback is not None:
                self._guard(callback)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            callback = self._children.pop(pid, None)
            if callback is not None:
                self._guard(callback, status)
                continue
            self._reaped.pop(pid, None)  # the number has come round
            self._reaped[pid] = status
            if len(self._reaped) > _REMEMBERED:
                del self._reaped[next(iter(self._reaped))]

    # -- life
    def run(self) -> None:
        """Run until `stop`. Call from the main thread when signals or children matter."""
        while True:
            self._run_timers()
            if self._stopping:
                self._stopping = False
                return
            for fd, events in self._wait():
                callback = self._callbacks.get(fd)
                if callback is not None:  # an earlier one of this batch may have removed it
                    self._guard(callback, events)

    def reap_everything(self) -> None:
        """Reap every child from now on, asked about or not: what PID 1 does."""
        self._install(signal.SIGCHLD)
        self.soon(self._reap)

    def stop(self) -> None:
        """Make `run` return after the present callbacks. Safe from any thread."""
        self._stopping = True
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # full: it wakes anyway

    def close(self) -> None:
        """Free the loop's descriptors and give signals back."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._old_wakeup is not None:
            signal.set_wakeup_fd(self._old_wakeup)
        self._old_handlers.clear()
        self._callbacks.clear()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait(self) -> list[tuple[int, int]]:
        while self._timers and self._timers[0]._callback is None:
            heapq.heappop(self._timers)
        if self._soon or self._stopping:
            timeout: float = 0
        elif self._timers:
            timeout = max(0.0, self._timers[0]._due - time.monotonic())
        else:
            timeout = -1
        return self._epoll.poll(timeout, _BATCH)

    def _run_timers(self) -> None:
        due, self._soon = self._soon, []
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0]._due <= now:
                due.append(heapq.heappop(self._timers))
        for timer in due:
            callback = timer._callback
            if callback is not None:
                timer._callback = None
                self._guard(callback)

    def _guard(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # the invariant above
            self._on_error(error)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Python writes a signal's number to the wake-up pipe only if it has a handler."""
