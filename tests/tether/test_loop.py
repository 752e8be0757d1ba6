"""The loop: descriptors, timers, children, signals, and callbacks that raise."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tether.support import run_until
from tether.loop import Loop


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
def loop(errors: list[BaseException]) -> Iterator[Loop]:
    before = len(os.listdir("/proc/self/fd"))
    loop = Loop(errors.append)
    yield loop
    loop.close()
    assert len(os.listdir("/proc/self/fd")) == before


def fork(code: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid


def test_readiness_calls_back_until_removed(loop: Loop) -> None:
    read, write = os.pipe()
    got: list[bytes] = []

    def ready(events: int) -> None:
        assert events & select.EPOLLIN
        got.append(os.read(read, 1))
        if len(got) == 2:
            loop.remove(read)
            loop.remove(read)
            loop.stop()

    loop.add(read, select.EPOLLIN, ready)
    os.write(write, b"abc")
    loop.run()
    assert got == [b"a", b"b"]
    os.close(read)
    os.close(write)


def test_one_callback_may_remove_another_that_is_ready_too(loop: Loop) -> None:
    pipes = [os.pipe(), os.pipe()]
    called: list[int] = []

    def ready(which: int) -> None:
        called.append(which)
        for read, _ in pipes:
            loop.remove(read)
        loop.stop()

    for n, (read, write) in enumerate(pipes):
        loop.add(read, select.EPOLLIN, lambda _, n=n: ready(n))
        os.write(write, b"x")
    loop.run()
    assert len(called) == 1
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)


def test_a_regular_file_cannot_be_watched(loop: Loop, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(PermissionError):
        loop.add(fd, select.EPOLLOUT, lambda _: None)
    loop.remove(fd)
    os.close(fd)


def test_timers_run_in_their_order_and_cancelled_ones_do_not(loop: Loop) -> None:
    order: list[str] = []
    loop.after(0.02, lambda: order.append("late"))
    loop.after(0.01, lambda: order.append("early"))
    loop.after(0.005, lambda: order.append("never")).cancel()
    loop.soon(lambda: order.append("soon"))
    loop.soon(lambda: order.append("never")).cancel()
    run_until(loop, lambda: "late" in order)
    assert order == ["soon", "early", "late"]


def test_soon_does_not_starve_descriptors(loop: Loop) -> None:
    read, write = os.pipe()
    os.write(write, b"x")

    def again() -> None:
        loop.soon(again)

    loop.soon(again)
    loop.add(read, select.EPOLLIN, lambda _: loop.stop())
    loop.run()
    loop.remove(read)
    os.close(read)
    os.close(write)


def test_a_raising_callback_costs_itself_only(loop: Loop, errors: list[BaseException]) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    loop.soon(broken)
    loop.after(0.001, loop.stop)
    loop.run()
    assert [str(error) for error in errors] == ["broken"]


def test_a_childs_end_is_told_with_its_status(loop: Loop) -> None:
    statuses: list[int] = []
    loop.on_child(fork(7), statuses.append)
    run_until(loop, lambda: bool(statuses))
    assert [os.waitstatus_to_exitcode(status) for status in statuses] == [7]


def test_a_killed_child_is_told_as_killed(loop: Loop) -> None:
    statuses: list[int] = []
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    loop.on_child(pid, statuses.append)
    loop.soon(lambda: os.kill(pid, signal.SIGKILL))
    run_until(loop, lambda: bool(statuses))
    assert os.waitstatus_to_exitcode(statuses[0]) == -signal.SIGKILL


def test_many_children_that_end_at_once_are_all_told(loop: Loop) -> None:
    ended: dict[int, int] = {}
    for code in range(30):
        loop.on_child(fork(code), lambda status, code=code: ended.update({code: status}))
    run_until(loop, lambda: len(ended) == 30)
    assert {code: os.waitstatus_to_exitcode(status) for code, status in ended.items()} == {
        code: code for code in range(30)
    }


def test_orphans_are_reaped_and_a_late_question_about_one_is_answered(loop: Loop) -> None:
    loop.reap_everything()
    pid = fork(9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def gone() -> bool:
        return not Path(f"/proc/{pid}").exists()

    run_until(loop, gone)
    statuses: list[int] = []
    loop.on_child(pid, statuses.append)
    run_until(loop, lambda: bool(statuses))
    assert os.waitstatus_to_exitcode(statuses[0]) == 9


def test_a_child_that_ended_before_anybody_listened_is_told(loop: Loop) -> None:
    pid = fork(5)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    statuses: list[int] = []
    loop.on_child(pid, statuses.append)
    run_until(loop, lambda: bool(statuses))
    assert os.waitstatus_to_exitcode(statuses[0]) == 5


def test_a_forgotten_child_is_reaped_in_silence(loop: Loop) -> None:
    statuses: list[int] = []
    pid = fork(0)
    loop.on_child(pid, statuses.append)
    loop.forget_child(pid)
    run_until(loop, lambda: not Path(f"/proc/{pid}").exists())
    assert statuses == []


def test_signals_are_handled_in_the_loop_and_given_back(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    seen: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: seen.append("usr1"))
    loop.soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    run_until(loop, lambda: bool(seen))
    with pytest.raises(ValueError, match="SIGCHLD"):
        loop.on_signal(signal.SIGCHLD, lambda: None)
    other = Loop(lambda error: None)
    other.on_signal(signal.SIGUSR2, lambda: None)
    other.close()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    assert before == signal.SIG_DFL


def test_stop_from_another_thread_wakes_the_loop(loop: Loop) -> None:
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.stop()
    thread.join(10)
    assert not thread.is_alive()
