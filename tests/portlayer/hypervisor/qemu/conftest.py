"""A fake QMP server and a session with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.qemu.monitor import Monitor
from tests.portlayer.hypervisor.qemu.fake_qmp import FakeQmp, fake_qmp

VM = "ab" * 32


@pytest.fixture
async def qmp(tmp_path: Path) -> AsyncIterator[FakeQmp]:
    async with fake_qmp(tmp_path / "qmp.sock") as made:
        yield made


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
async def monitor(qmp: FakeQmp, events: list[tuple[str, dict[str, Any]]]) -> AsyncIterator[Monitor]:
    made = await Monitor.connect(
        VM, qmp.path, lambda name, data: events.append((name, dict(data))), timeout=10
    )
    yield made
    await made.close()
