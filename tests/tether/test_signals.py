"""Signals to one process, its group, or all of its session: against real processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from tether.cgroup import Cgroup
from tether.signals import send_signal
from tether.tether_pb2 import SignalRequest

SCRIPT = "sleep 60 & echo $!; setsid sleep 60 & echo $!; wait"


def start() -> tuple[subprocess.Popen[str], int, int]:
    process = subprocess.Popen(
        ["sh", "-c", SCRIPT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    inside, outside = int(process.stdout.readline()), int(process.stdout.readline())
    return process, inside, outside


def finish(process: subprocess.Popen[str], *others: int) -> int:
    code = process.wait(timeout=30)
    assert process.stdout is not None
    process.stdout.close()
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    return code


def test_one_is_one() -> None:
    process, inside, outside = start()
    send_signal(process.pid, signal.SIGKILL, SignalRequest.ONE, whole=None)
    assert finish(process, inside, outside) == -signal.SIGKILL


@pytest.mark.parametrize("scope", [SignalRequest.GROUP, SignalRequest.ALL])
def test_a_group_or_a_session_goes_together(scope: SignalRequest.Scope.ValueType) -> None:
    process, inside, outside = start()
    # A descriptor of it tells when it is gone, whoever its parent is by then.
    watched = os.pidfd_open(inside)
    send_signal(process.pid, signal.SIGKILL, scope, whole=None)
    assert finish(process, outside) == -signal.SIGKILL
    poll = select.poll()
    poll.register(watched)
    assert poll.poll(30_000), "the child of the session lives on"
    os.close(watched)


@pytest.mark.parametrize("number", [0, -1, 65])
def test_impossible_signals_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"invalid signal: {number}"):
        send_signal(os.getpid(), number, SignalRequest.ONE, whole=None)


def test_all_of_the_container_is_its_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(Cgroup, "kill", lambda _: calls.append("killed"))
    monkeypatch.setattr(Cgroup, "pids", lambda _: [11, 12])
    monkeypatch.setattr("tether.signals.os.kill", lambda pid, number: calls.append((pid, number)))
    cgroup = Cgroup("/nowhere", lambda _: None)
    send_signal(11, signal.SIGKILL, SignalRequest.ALL, whole=cgroup)
    send_signal(11, signal.SIGHUP, SignalRequest.ALL, whole=cgroup)
    assert calls == ["killed", (11, signal.SIGHUP), (12, signal.SIGHUP)]
