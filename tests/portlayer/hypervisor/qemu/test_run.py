"""What a run makes of QEMU's words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from portlayer.hypervisor.base import HypervisorError, PowerState
from portlayer.hypervisor.qemu.monitor import MonitorLost
from portlayer.hypervisor.qemu.process import QemuProcess
from portlayer.hypervisor.qemu.run import Run
from portlayer.hypervisor.qemu.runtime import Launched, RunDirectory
from tests.portlayer.hypervisor.qemu.fake_qmp import FakeQmp

VM = "ab" * 32


class Process(SimpleNamespace):
    alive = True
    status: str | None = "killed by SIGSEGV"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def powers() -> list[PowerState]:
    return []


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def run(tmp_path: Path, powers: list[PowerState], process: Process) -> Run:
    made = Run(RunDirectory(tmp_path, VM), powers.append)
    made.begin(cast(QemuProcess, process), Launched(profile="fast", accelerator="tcg"), None)
    return made


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        ("guest-shutdown", "guest-shutdown"),
        ("host-qmp-quit", "power-off"),
        ("guest-reset", "crashed: guest-reset; last words"),
        ("guest-panic", "crashed: guest-panic; last words"),
        ("host-signal", "crashed: host-signal; last words"),
    ],
)
async def test_qemus_reason_is_translated(run: Run, reason: str, detail: str) -> None:
    run.handle("SHUTDOWN", {"guest": True, "reason": reason})
    assert run.why("last words") == detail


async def test_without_a_word_it_crashed(run: Run, process: Process) -> None:
    assert run.why("w") == "crashed: QEMU killed by SIGSEGV; w"
    process.status = None
    assert run.why("w") == "crashed: QEMU vanished; w"
    run.cut = True
    assert run.why("w") == "power-off"


async def test_stop_and_resume_are_power_states_until_the_shutdown(
    run: Run, powers: list[PowerState]
) -> None:
    for name, data in (("STOP", {}), ("RESUME", {}), ("SHUTDOWN", {"reason": "x"}), ("STOP", {})):
        run.handle(name, cast(dict[str, Any], data))
    run.handle("UNKNOWN_TO_US", {"a": 1})
    run.handle("DEVICE_DELETED", {"path": "/machine/peripheral-anon/device[0]"})
    assert powers == [PowerState.SUSPENDED, PowerState.ON]


async def test_a_lost_session_is_made_again_and_the_state_asked_for(
    run: Run, qmp: FakeQmp, powers: list[PowerState]
) -> None:
    qmp.answers["query-status"] = lambda _: {"running": False, "status": "paused"}
    first = await run.session()
    assert await run.session() is first
    qmp.hang_up()
    await first.drain()
    second = await run.session()
    assert (second is first, qmp.connections) == (False, 2)
    assert powers == [PowerState.SUSPENDED, PowerState.SUSPENDED]
    await run.let_go()


async def test_a_dead_process_is_not_talked_to(run: Run, process: Process) -> None:
    process.alive = False
    with pytest.raises(MonitorLost, match="ending"):
        await run.session()


async def test_without_a_channel_socket_the_call_fails(run: Run) -> None:
    with pytest.raises(HypervisorError, match="channel"):
        await run.open_channel()


async def test_the_end_fails_who_waits(run: Run) -> None:
    unplugging, migrating = run.unplugged.expect("disk-a"), run.migration.begin()
    await run.hear_out()
    for waiting in (unplugging, migrating):
        with pytest.raises(MonitorLost, match="ended"):
            await waiting
