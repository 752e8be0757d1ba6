"""One lab per module, and one client of it: `lab` and `vcenter` without guests, `booting` with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.namespace import private_network
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
    """Interfaces that a lab makes and that are there now, in this thread's network."""
    shown = subprocess.run(["ip", "-j", "link"], check=True, capture_output=True)
    return {link["ifname"] for link in json.loads(shown.stdout) if link["ifname"].startswith("lab")}


@pytest.fixture(scope="module")
def booting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabProcess]:
    """A lab that boots guests. It and this thread are in a network namespace of their own."""
    with private_network():
        process = LabProcess(tmp_path_factory.mktemp("lab"))
        yield process
        process.close()
        assert links() == set()


@pytest.fixture(scope="module")
def host(booting: LabProcess, guest_iso: Path) -> Iterator[VCenter]:
    (booting.datastore / "iso").mkdir()
    (booting.datastore / "iso/guest.iso").write_bytes(guest_iso.read_bytes())
    client = VCenter(booting)
    yield client
    client.close()
