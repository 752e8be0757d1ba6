"""One lab per module, and one client of it: `lab` and `vcenter` without guests, `booting` with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guest import write_guest
from tests.lab.process import ROOT, LabProcess
from tests.lab.vcenter import VCenter


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcess]:
    process = LabProcess(tmp_path_factory.mktemp("lab"), "-qemu=false")
    yield process
    process.close()


@pytest.fixture(scope="module")
def vcenter(lab: LabProcess) -> Iterator[VCenter]:
    client = VCenter(lab)
    yield client
    client.close()


@pytest.fixture(scope="session")
def guest_iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    iso = tmp_path_factory.mktemp("guest") / "guest.iso"
    write_guest(iso, ROOT / "build/guest")
    return iso


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one test breaks is whole for the next."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").control("DELETE", "faults")


def links() -> set[str]:
    """Interfaces that a lab makes and that are there now."""
    return {name for name in os.listdir("/sys/class/net") if name.startswith("lab")}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
