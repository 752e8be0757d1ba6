"""Processes are known by more than their number."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portlayer.hypervisor.qemu.process import (
    Credentials,
    QemuProcess,
    find_by_name,
    is_named,
    spawn,
    start_time,
)

NAME = "mooring-test-of-processes"
WAIT = "import sys; print('up', flush=True); sys.stdin.read(); import time; time.sleep(60)"
US = Credentials(uid=os.getuid(), gid=os.getgid())


@pytest.fixture
def child() -> Iterator[int]:
    heard, output = os.pipe()
    pid = spawn([sys.executable, "-c", WAIT, "-name", NAME], credentials=US, descriptors=[], output=output)
    os.close(output)
    assert os.read(heard, 10) == b"up\n"
    os.close(heard)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def test_it_leads_a_session_of_its_own_and_reads_nothing(child: int) -> None:
    assert os.getsid(child) == child
    assert Path(f"/proc/{child}/fd/0").readlink() == Path("/dev/null")


def test_its_limits_are_set_before_it_runs(child: int) -> None:
    limits = Path(f"/proc/{child}/limits").read_text().splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


def test_it_is_found_by_name_while_it_lives(child: int) -> None:
    assert is_named(child, NAME)
    assert not is_named(child, NAME[:-1])
    assert find_by_name(NAME) == child
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert start_time(child) is None, "a dead child that nobody reaped is dead"
    assert find_by_name(NAME) is None


async def test_its_end_is_heard_and_it_is_reaped(child: int) -> None:
    process = QemuProcess(child)
    heard = asyncio.Event()
    process.on_end(heard.set)
    assert process.alive
    process.kill()
    await asyncio.wait_for(heard.wait(), 10)
    assert (process.alive, process.status) == (False, "killed by SIGKILL")
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
    process.kill()  # nothing happens to whoever got the number
    process.close()
    process.close()


async def test_a_late_listener_hears_of_an_end_that_was(child: int) -> None:
    process = QemuProcess(child)
    process.kill()
    await process.wait()
    heard = asyncio.Event()
    process.on_end(heard.set)
    await asyncio.wait_for(heard.wait(), 10)
    process.close()


async def test_an_exit_status_is_told(tmp_path: Path) -> None:
    output = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    pid = spawn(["sh", "-c", "echo no >&2; exit 3"], credentials=US, descriptors=[], output=output)
    os.close(output)
    process = QemuProcess(pid)
    await process.wait()
    assert process.status == "exit status 3"
    assert (tmp_path / "output").read_bytes() == b"no\n"
    process.close()


async def test_somebody_elses_child_ends_without_a_status() -> None:
    # our grandchild: its parent ends first, init inherits it
    script = "import os,sys,time\npid=os.fork()\nif pid: print(pid); sys.exit()\nos.close(1); os.close(2); time.sleep(60)"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout
    process = QemuProcess(int(shown))
    process.kill()
    await process.wait()
    assert process.status is None
    process.close()


def test_no_process_no_start_time() -> None:
    assert start_time(1 << 22) is None
    assert not is_named(1 << 22, NAME)
    own = start_time(os.getpid())
    assert own is not None
    assert own > 0
