"""The lock is the truth about a run; pid and start time only a note."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.qemu import runtime
from portlayer.hypervisor.qemu.process import start_time
from portlayer.hypervisor.qemu.runtime import Launched, RunDirectory
from portlayer.hypervisor.rotation import tail

VM = "ab" * 32


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run", VM)
    made.create()
    return made


def test_the_directory_is_ours_alone(run: RunDirectory) -> None:
    assert run.path.stat().st_mode & 0o777 == 0o700


def test_a_held_lock_is_seen_and_not_taken_twice(run: RunDirectory) -> None:
    assert not run.held()
    descriptor = run.take_lock()
    assert run.held()
    with pytest.raises(HypervisorError, match="still holds"):
        run.take_lock()
    with pytest.raises(HypervisorError, match="still holds"):
        run.create()
    heir = os.dup(descriptor)  # what QEMU inherits
    os.close(descriptor)
    assert run.held()
    os.close(heir)
    assert not run.held()


def test_no_lock_no_process(run: RunDirectory) -> None:
    run.note_process(os.getpid())  # alive, but not this VM's QEMU
    assert run.process() is None


def test_the_noted_process_must_have_started_then_and_carry_the_name(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "is_named", lambda pid, name: name == f"mooring-{VM}")
    run.note_process(os.getpid())
    assert run.process() == os.getpid()
    (run.path / "qemu.pid").write_text(f"{os.getpid()} {start_time(os.getpid() or 0) or 0 + 1}1\n")
    assert run.process() is None, "the number was used again"


def test_a_process_nobody_noted_is_searched_while_the_lock_is_held(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_by_name", lambda name: 4711)
    assert run.process() is None
    descriptor = run.take_lock()
    assert run.process() == 4711
    (run.path / "qemu.pid").write_text("torn")
    assert run.process() == 4711
    os.close(descriptor)


def test_what_was_launched_comes_back(run: RunDirectory) -> None:
    launched = Launched(profile="fast", accelerator="tcg", disks={"root": 0, "v": 8}, nics=("mt1",))
    assert run.launched() is None
    run.note_launched(launched)
    assert run.launched() == launched
    (run.path / "launch.json").write_text("{}")
    assert run.launched() is None


def test_plugging_is_remembered() -> None:
    launched = Launched(profile="fast", accelerator="tcg", disks={"root": 0})
    changed = launched.with_disk("hot", 1).with_nic("mt1").without_disk("root")
    assert (changed.disks, changed.nics, changed.plugged) == ({"hot": 1}, ("mt1",), True)
    assert changed.without_nic("mt1").nics == ()
    assert not launched.plugged


def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / ("x" * 100) / "run", VM)
    with pytest.raises(HypervisorError, match="107 bytes"):
        run.create()
    assert not run.path.exists()


def test_a_listener_is_there_before_its_server(run: RunDirectory) -> None:
    with run.listen(run.monitor) as listener:
        assert run.monitor.is_socket()
        assert listener.getsockname() == str(run.monitor)


def test_the_tail_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert tail(path, 3) == b""
    path.write_bytes(b"12345")
    assert tail(path, 3) == b"345"
    assert tail(path, 30) == b"12345"
    assert tail(path, 0) == b""
