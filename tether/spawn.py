"""Fork the children of PID 1 that become workload, and learn whether they did.

PID 1 puts its next child into a PID namespace by setns before the fork and
takes itself back after it: one fork is enough, and the workload is our own
child, so its exit status comes to us. A pipe that closes at exec carries the
reason when there is no exec.
"""

from __future__ import annotations

import _socket  # not socket: see tether/uevents.py
import array
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from tether import linux
from tether.become import CANNOT_START, Failure

__all__ = [
    "OWN_NAMESPACE",
    "Channels",
    "Spawned",
    "close_ends",
    "fork_child",
    "open_channels",
    "read_report",
    "receive_terminal",
    "send_terminal",
]

_OWN_PID_NAMESPACE = "/proc/self/ns/pid"
OWN_NAMESPACE = -1
_MAX_REPORT = 4096
_MAX_FD = 1 << 20


class Spawned(NamedTuple):
    """A child that is on its way: our ends of everything."""

    pid: int
    report: int  # readable: end of file when it runs, or `read_report`
    terminal: int  # a socket on which the terminal's master comes, or -1
    stdin: int  # -1: /dev/null
    stdout: int
    stderr: int


class Channels(NamedTuple):
    """The child's ends, inherited."""

    report: int
    terminal: int
    stdin: int
    stdout: int
    stderr: int


def open_channels(*, tty: bool, stdin: bool) -> tuple[Spawned, Channels]:
    """Pipes (or, for a terminal, the socket its master comes through) for one child; pid is still 0."""
    report_in, report_out = os.pipe2(os.O_CLOEXEC)
    if tty:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        return (
            Spawned(0, report_in, ours.detach(), -1, -1, -1),
            Channels(report_out, theirs.detach(), null, os.dup(null), os.dup(null)),
        )
    if stdin:
        stdin_in, stdin_out = os.pipe2(os.O_CLOEXEC)
    else:
        stdin_in, stdin_out = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    stdout_in, stdout_out = os.pipe2(os.O_CLOEXEC)
    stderr_in, stderr_out = os.pipe2(os.O_CLOEXEC)
    return (
        Spawned(0, report_in, -1, stdin_out, stdout_in, stderr_in),
        Channels(report_out, -1, stdin_in, stdout_out, stderr_out),
    )


def fork_child(
    body: Callable[[Channels], NoReturn],
    spawned: Spawned,
    channels: Channels,
    *,
    pid_namespace: int | None,
    keep: tuple[int, ...] = (),
) -> Spawned:
    """Run ``body`` in a child; the child's ends are closed in the parent.

    Args:
        pid_namespace: descriptor of the PID namespace it is born into; None makes a new one.
        keep: descriptors that ``body`` needs. All others are closed in the child: a copy of a pipe's
            end, held by a child that lives long, would keep its reader waiting for the end.
    """
    own = os.open(_OWN_PID_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if pid_namespace is None:
            linux.unshare(linux.CLONE_NEWPID)
        elif pid_namespace >= 0:
            linux.setns(pid_namespace, linux.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                _run(body, channels, keep)
        finally:
            if pid_namespace != OWN_NAMESPACE:
                linux.setns(own, linux.CLONE_NEWPID)
    finally:
        os.close(own)
        for fd in channels:
            if fd >= 0:
                os.close(fd)
    return spawned._replace(pid=pid)


def close_ends(spawned: Spawned) -> None:
    """Close our ends of a child's streams: it never ran."""
    for fd in (spawned.terminal, spawned.stdin, spawned.stdout, spawned.stderr):
        if fd >= 0:
            os.close(fd)


def read_report(fd: int) -> Failure | None:
    """After the report pipe became readable: None when the workload runs."""
    data = b""
    while piece := os.read(fd, _MAX_REPORT):
        data += piece
    if not data:
        return None
    return Failure(data[1:].decode(errors="replace"), data[0])


def receive_terminal(fd: int) -> int:
    """The terminal's master that the child sent, or -1 when it went away before."""
    connection = _socket.socket(fileno=os.dup(fd))
    try:
        _, ancillary, _, _ = connection.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    finally:
        connection.close()
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            return int(struct.unpack("i", data[:4])[0])
    return -1


def send_terminal(fd: int, master: int) -> None:
    """The child's side of `receive_terminal`."""
    connection = _socket.socket(fileno=fd)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [master]))
    connection.sendmsg([b"t"], [rights])
    connection.detach()


def _run(body: Callable[[Channels], NoReturn], channels: Channels, keep: tuple[int, ...]) -> NoReturn:
    """The child. Whatever happens, it never gets back into PID 1's code."""
    try:
        _reset_signals()
        os.dup2(channels.stdin, 0)
        os.dup2(channels.stdout, 1)
        os.dup2(channels.stderr, 2)
        kept = {0, 1, 2, channels.report, channels.terminal, _bundle(), *keep}
        _close_all_but(sorted(kept - {-1}))
        body(channels)
    except Failure as failure:
        _report(channels.report, failure.code, str(failure))
    except BaseException as error:
        _report(channels.report, CANNOT_START, str(error) or type(error).__name__)
    finally:
        os._exit(CANNOT_START)


def _bundle() -> int:
    """What late imports read the frozen modules from (imagebuild/trim.py); it closes at exec."""
    return int(getattr(sys.meta_path[0], "file", -1))


def _close_all_but(kept: list[int]) -> None:
    for low, high in zip(kept, [*kept[1:], _MAX_FD], strict=True):
        os.closerange(low + 1, high)


def _report(fd: int, code: int, text: str) -> None:
    os.write(fd, bytes([code]) + text.encode(errors="replace")[: _MAX_REPORT - 1])


def _reset_signals() -> None:
    # Python ignores these two, and an ignored signal stays ignored over exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
