"""Saving and restoring memory, against a QEMU from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import HypervisorError, NotSupported
from portlayer.hypervisor.qemu.memory import Migration, restore, saved
from portlayer.hypervisor.qemu.monitor import Monitor
from tests.portlayer.hypervisor.qemu.fake_qmp import FakeQmp, Refusal


@pytest.fixture
def migration(qmp: FakeQmp) -> Migration:
    """QEMU completes at once; it is ready to go on a question later."""
    made = Migration()
    states = ["finish-migrate", "postmigrate"]

    def complete(_: object) -> dict[str, Any]:
        for status in ("setup", "active", "completed"):
            made.event(status)
        return {}

    qmp.answers["migrate"] = qmp.answers["migrate-incoming"] = complete
    qmp.answers["query-status"] = lambda _: {"status": states.pop(0), "running": False}
    return made


async def test_the_guest_stands_still_inside_and_goes_on_behind(
    qmp: FakeQmp, monitor: Monitor, migration: Migration, tmp_path: Path
) -> None:
    async with saved(monitor, migration, tmp_path / "state", running=True):
        assert qmp.names()[-2:] == ["query-status", "query-status"]
        assert "cont" not in qmp.names()
    assert qmp.names()[-1] == "cont"
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


async def test_a_suspended_guest_stays_so(
    qmp: FakeQmp, monitor: Monitor, migration: Migration, tmp_path: Path
) -> None:
    async with saved(monitor, migration, tmp_path / "state", running=False):
        pass
    assert "cont" not in qmp.names()


async def test_qemus_refusal_is_passed_on(
    qmp: FakeQmp, monitor: Monitor, migration: Migration, tmp_path: Path
) -> None:
    def refuse(_: object) -> None:
        raise Refusal("The vmdk format used by node 'node-d' does not support live migration")

    qmp.answers["migrate"] = refuse
    with pytest.raises(NotSupported, match="The vmdk format"):
        async with saved(monitor, migration, tmp_path / "state", running=True):
            raise AssertionError("nothing was saved")


async def test_a_failure_names_its_reason_and_the_guest_goes_on(
    qmp: FakeQmp, monitor: Monitor, migration: Migration, tmp_path: Path
) -> None:
    qmp.answers["migrate"] = lambda _: migration.event("failed") or {}
    qmp.answers["query-migrate"] = lambda _: {"status": "failed", "error-desc": "No space left on device"}
    with pytest.raises(HypervisorError, match="No space left"):
        async with saved(monitor, migration, tmp_path / "state", running=True):
            raise AssertionError("nothing was saved")
    assert qmp.names()[-1] == "cont"


async def test_an_existing_file_is_not_overwritten(
    monitor: Monitor, migration: Migration, tmp_path: Path
) -> None:
    (tmp_path / "state").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        async with saved(monitor, migration, tmp_path / "state", running=True):
            raise AssertionError("nothing was saved")


async def test_restoring(qmp: FakeQmp, monitor: Monitor, migration: Migration, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"memory")
    await restore(monitor, migration, tmp_path / "state")
    qmp.answers["migrate-incoming"] = lambda _: migration.event("failed") or {}
    with pytest.raises(HypervisorError, match="failed"):
        await restore(monitor, migration, tmp_path / "state")
