"""The back end against the lab without guests: fast, and everything that can go wrong can be made to."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from portlayer.hypervisor.base import VmConfig
from portlayer.hypervisor.vsphere import VsphereHypervisor
from tests.lab.process import LabProcess
from tests.lab.vcenter import VCenter
from tests.vsphere.place import Place, vch_in


@pytest.fixture(scope="session")
def lab() -> Iterator[LabProcess]:
    with tempfile.TemporaryDirectory(prefix="mooring-lab-") as directory:
        process = LabProcess(Path(directory), "-qemu=false")
        yield process
        process.close()


@pytest.fixture
def place(lab: LabProcess) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="mv-") as directory:
        yield vch_in(lab, Path(directory))


@pytest.fixture
def admin(lab: LabProcess) -> Iterator[VCenter]:
    """Somebody else at the same vCenter."""
    client = VCenter(lab)
    yield client
    client.close()


@pytest.fixture
async def hypervisor(lab: LabProcess, place: Place) -> AsyncIterator[VsphereHypervisor]:
    made = VsphereHypervisor(place.config)
    await made.open()
    yield made
    lab.control("DELETE", "faults")
    for info in await made.list():
        await made.power_off(info.config.id)
        await made.delete(info.config.id)
    await made.close()
    assert lab.state()["vms"] == [], "nothing is orphaned"
    assert not await asyncio.to_thread(lambda: list((place.config.root / "vms").iterdir()))


@pytest.fixture
def config(place: Place) -> VmConfig:
    return VmConfig(id=secrets.token_hex(32), name="web", memory_mib=64, extra={"container": b"spec"})
