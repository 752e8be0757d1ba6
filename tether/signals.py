"""Send signals to one process of the container, its group, or all it belongs to."""

from __future__ import annotations

import contextlib
import os

from tether.cgroup import Cgroup, read
from tether.tether_pb2 import SignalRequest

__all__ = ["send_signal"]

_SIGKILL = 9
_LAST_SIGNAL = 64
_LOOKS = 16


def send_signal(pid: int, signal: int, scope: SignalRequest.Scope.ValueType, *, whole: Cgroup | None) -> None:
    """Signal ``pid`` (an unreaped child, so the number is its own).

    Args:
        whole: what ALL means for the main process; an exec's ALL is its session.

    Raises:
        ValueError: no such signal.
    """
    if not 0 < signal <= _LAST_SIGNAL:
        raise ValueError(f"invalid signal: {signal}")
    if scope == SignalRequest.ALL and whole is not None:
        if signal == _SIGKILL:
            whole.kill()
            return
        targets = whole.pids()
    elif scope == SignalRequest.ALL:
        _signal_session(pid, signal)
        return
    elif scope == SignalRequest.GROUP:
        os.killpg(os.getpgid(pid), signal)
        return
    else:
        targets = [pid]
    for target in targets:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(target, signal)


def _signal_session(leader: int, signal: int) -> None:
    """Signal every process of an exec: it leads a session, which its children stay in unless they leave."""
    done: set[int] = set()
    # A child born while we looked is found by the next look; a process that forks for ever outruns us.
    for _ in range(_LOOKS):
        found = _session(leader) - done
        if not found:
            return
        for target in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal)
        done |= found


def _session(leader: int) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.add(int(name))
    return found
