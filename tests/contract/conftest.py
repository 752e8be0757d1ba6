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
from tests.contract.vsphere import VsphereBackend, lab_in_a_network_of_its_own
from tests.lab.process import LabProcess

BACKENDS = ("qemu-fast", "qemu-vsphere", "vsphere")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of the contract run on every back end asked for; those of one alone name it themselves."""
    if "backend" not in metafunc.fixturenames:
        return
    marks = metafunc.definition.iter_markers("parametrize")
    if not any(mark.args[0] == "backend" for mark in marks):
        metafunc.parametrize("backend", _chosen(metafunc.config), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = _chosen(config)
    out = [item for item in items if _backend(item) not in (None, *chosen)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def _chosen(config: pytest.Config) -> list[str]:
    chosen = str(config.getoption("--hypervisor")).split(",")
    for name in chosen:
        assert name in BACKENDS, f"--hypervisor {name}: expected some of {', '.join(BACKENDS)}"
    return chosen


def _backend(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    return None if call is None else call.params.get("backend")


@pytest.fixture(scope="session")
def boot_files() -> Iterator[BootFiles]:
    directory = Path(tempfile.mkdtemp(prefix="mooring-boot-"))
    yield make_boot_files(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def lab() -> Iterator[LabProcess]:
    directory = Path(tempfile.mkdtemp(prefix="mooring-lab-"))
    with lab_in_a_network_of_its_own(directory) as running:
        yield running
    shutil.rmtree(directory)


@pytest.fixture
def backend(request: pytest.FixtureRequest, boot_files: BootFiles) -> Iterator[Backend]:
    directory = Path(tempfile.mkdtemp(prefix="mc-"))  # short: sockets live below it
    directory.chmod(0o711)
    made: Backend
    if request.param == "vsphere":
        made = VsphereBackend(directory, boot_files, request.getfixturevalue("lab"))
    else:
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
