"""Fixtures: each test runs on every back end, with a hypervisor that is open and a host that was clean."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from portlayer.hypervisor.base import Hypervisor
from tests.contract.backend import Backend, QemuBackend
from tests.contract.guest import BootFiles, make_boot_files
from tests.contract.scene import Scene

BACKENDS = ("qemu-fast", "qemu-vsphere")


@pytest.fixture(scope="session")
def boot_files() -> Iterator[BootFiles]:
    directory = Path(tempfile.mkdtemp(prefix="mooring-boot-"))
    yield make_boot_files(directory)
    shutil.rmtree(directory)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, boot_files: BootFiles) -> Iterator[Backend]:
    directory = Path(tempfile.mkdtemp(prefix="mc-"))  # short: sockets live below it
    directory.chmod(0o711)
    made = QemuBackend(directory, boot_files, request.param.removeprefix("qemu-"))
    yield made
    shutil.rmtree(directory)


@pytest.fixture
async def scene(backend: Backend) -> AsyncIterator[Scene]:
    made = Scene(backend)
    await made.hypervisor.open()
    yield made
    await made.remove_all()
    await made.hypervisor.close()
    assert backend.remains() == []


@pytest.fixture
def hypervisor(scene: Scene) -> Hypervisor:
    return scene.hypervisor


@pytest.fixture
def network(backend: Backend) -> Iterator[None]:
    with backend.network():
        yield
