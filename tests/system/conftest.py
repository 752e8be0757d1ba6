"""Fixtures of the system tests: one host, one registry and one VCH for the whole run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import GUEST, ROOT, Docker, Host, Vch, footprint, registry_in, temporary_host


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    assert (GUEST / "kernel").exists(), "the guest is not built: run `make guest`"
    # Not below pytest's own directory: every pytest that starts closes that to other users, and QEMU is one.
    with (
        tempfile.TemporaryDirectory(prefix="mooring-test-", dir="/var/tmp") as scratch,
        temporary_host(f"mt{os.getpid()}", Path(scratch)) as made,
    ):
        made.directory.chmod(0o711)
        yield made


@pytest.fixture(scope="session")
def registry(host: Host) -> str:
    return registry_in(host)


@pytest.fixture(scope="session")
def vch(host: Host, registry: str) -> Iterator[Vch]:
    shared = host.directory / "shared"
    shared.mkdir()
    registries = ("--insecure-registry", registry, "--registry-mirror", f"http://{registry}")
    made = Vch(host, "main", *registries, "--share-path", str(shared))
    busybox = subprocess.run(
        [sys.executable, ROOT / "tools/busybox_image.py"], capture_output=True, check=True
    ).stdout
    archive = host.directory / "busybox.tar"
    archive.write_bytes(busybox)
    made.docker("load", "--input", archive)
    yield made
    made.delete()


@pytest.fixture
def docker(request: pytest.FixtureRequest, vch: Vch, host: Host) -> Iterator[Docker]:
    """The docker CLI; a test that passes has left nothing, after one that fails we sweep."""
    before = footprint(host, vch)
    yield vch.docker
    report = getattr(request.node, "report_call", None)  # none: the run was interrupted
    if report is not None and report.passed:
        assert footprint(host, vch) == before, "the test left something behind"
    else:
        sweep(vch.docker)


def sweep(docker: Docker) -> None:
    containers = docker.out("ps", "--all", "--quiet").split()
    if containers:
        docker("rm", "--force", "--volumes", *containers, check=False)
    docker("network", "prune", "--force", check=False)
    docker("volume", "prune", "--all", "--force", check=False)


@pytest.fixture(autouse=True)
def logs_on_failure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Show the daemons' last words when a test fails."""
    yield
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed and "vch" in request.fixturenames:
        root = request.getfixturevalue("vch").root
        for path in sorted((root / "log").glob("*.log")):
            print(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-40:]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    setattr(item, f"report_{report.when}", report)
