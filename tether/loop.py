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

from collections.abc import Callable

__all__ = ["Loop", "Timer"]


class Timer:
    """A callback that is due once; `cancel` makes it never happen."""

    def cancel(self) -> None:
        raise NotImplementedError


class Loop:
    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        """``on_error`` is told every exception that a callback let escape."""
        raise NotImplementedError

    # -- file descriptors
    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready_events)`` while ``fd`` is ready for ``events`` (select.EPOLLIN, …).

        EPOLLHUP and EPOLLERR are always reported. Add select.EPOLLET for
        descriptors whose hang-up lasts.

        Raises:
            PermissionError: a regular file, which is always ready and cannot be watched.
        """
        raise NotImplementedError

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events; 0 mutes all but hang-up and error."""
        raise NotImplementedError

    def remove(self, fd: int) -> None:
        """Forget ``fd``: do this before closing it. No callback for it runs any more. Idempotent."""
        raise NotImplementedError

    # -- time
    def soon(self, callback: Callable[[], None]) -> Timer:
        """Call after the callbacks that run now, before waiting again."""
        raise NotImplementedError

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        raise NotImplementedError

    # -- processes and signals
    def on_child(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(wait_status)`` once when ``pid`` has ended (os.waitstatus_to_exitcode reads it)."""
        raise NotImplementedError

    def forget_child(self, pid: int) -> None:
        """The child's end is no longer of interest; it is reaped all the same."""
        raise NotImplementedError

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Handle a signal in the loop. SIGCHLD is the loop's own."""
        raise NotImplementedError

    # -- life
    def run(self) -> None:
        """Run until `stop`. Call from the main thread when signals or children matter."""
        raise NotImplementedError

    def stop(self) -> None:
        """Make `run` return after the present callbacks. Safe from any thread."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the loop's descriptors and give signals back."""
        raise NotImplementedError
