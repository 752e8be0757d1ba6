"""system df, prune with its filters, stats, and what becomes of containers whose engine was away."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.harness import Docker, Vch, eventually

pytestmark = pytest.mark.system

WORK = "while true; do dd if=/dev/zero of=/x bs=64k count=16 conv=fsync 2>/dev/null; sleep 1; done"


def test_disk_usage_and_prune(docker: Docker) -> None:
    docker("create", "--name", "kept", "--label", "keep=yes", "--volume", "used:/v", "busybox", "true")
    docker("create", "--name", "loose", "--volume", "/anonymous", "busybox", "true")
    docker("volume", "create", "--label", "tier=db", "spare")
    docker("network", "create", "--label", "keep=yes", "segment")
    rows = docker.out("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").splitlines()
    assert rows == ["Images 1 1", "Containers 2 0", "Local Volumes 3 2", "Build Cache 0 0"]
    detail = docker.out("system", "df", "--verbose")
    assert "kept" in detail
    assert "spare" in detail

    assert "loose" not in docker.out("container", "prune", "--force", "--filter", "until=1h")
    docker("container", "prune", "--force", "--filter", "label!=keep")
    assert docker.out("ps", "--all", "--format", "{{.Names}}") == "kept"
    docker("network", "prune", "--force", "--filter", "label!=keep")
    docker("network", "prune", "--force", "--filter", "until=1h")
    assert "segment" in docker.out("network", "ls")
    docker("volume", "prune", "--force", "--all", "--filter", "label!=tier")
    assert docker.out("volume", "ls", "--quiet").split() == ["spare", "used"]
    docker("image", "prune", "--force", "--filter", "until=1h")
    bad = docker("container", "prune", "--force", "--filter", "colour=red", check=False)
    assert "invalid filter 'colour'" in bad.stderr

    pruned = docker.out("system", "prune", "--force", "--volumes")
    assert "Deleted Networks:\nsegment" in pruned
    docker("volume", "rm", "used", "spare")
    seen = docker.out("events", "--since", "1m", "--until", "0s", "--filter", "event=prune")
    assert {line.split()[1] for line in seen.splitlines()} == {"container", "network", "volume", "image"}


def test_statistics(docker: Docker) -> None:
    docker("run", "--detach", "--name", "busy", "--memory", "64m", "busybox", "sh", "-c", WORK)
    form = "{{.Name}} {{.PIDs}} {{.MemUsage}} {{.NetIO}} {{.BlockIO}}"

    def written() -> bool:
        return not docker.out("stats", "--no-stream", "--format", "{{.BlockIO}}", "busy").endswith(" 0B")

    eventually(written, "its writes are counted")
    name, processes, *rest = docker.out("stats", "--no-stream", "--format", form, "busy").split()
    assert name == "busy"
    assert 1 <= int(processes) <= 3
    assert rest[:3][2] == "64MiB"
    assert rest[3:6:2] != ["0B", "0B"], "the network was used: its address was announced"
    docker("rm", "--force", "busy")


def test_the_policies_hold_while_the_engine_is_away(docker: Docker, vch: Vch) -> None:
    for name, *options in (
        ("again", "--restart", "always"),
        ("rested", "--restart", "unless-stopped"),
        ("gone", "--rm", "--volume", "/anonymous"),
    ):
        docker("run", "--detach", "--name", name, *options, "busybox", "sleep", "1000")
    docker("stop", "--time", "0", "rested")
    ending = [vch.qemu("again"), vch.qemu("gone")]
    volumes = docker.out("volume", "ls", "--quiet")
    assert volumes
    vch.machine("stop", vch.name)
    descriptors = [os.pidfd_open(process) for process in ending]
    for descriptor in descriptors:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    vch.machine("start", vch.name)
    eventually(lambda: docker("version", check=False).returncode == 0, "the API answers again")

    def states() -> str:
        return docker.out("ps", "--all", "--format", "{{.Names}}={{.State}}")

    eventually(lambda: sorted(states().split()) == ["again=running", "rested=exited"], "as the policies say")
    assert docker.out("volume", "ls", "--quiet") == ""
    docker("rm", "--force", "again", "rested")
