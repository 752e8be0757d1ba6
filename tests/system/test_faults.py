"""kill -9 of anything, at any time: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

from tests.system.harness import Docker, Host, Vch, eventually

pytestmark = pytest.mark.system

SERVE = "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 80 >/dev/null; done"
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


def fetch(host: Host, url: str) -> str:
    script = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
    return host.run(sys.executable, "-c", script, check=False).stdout.strip()


def shape(docker: Docker, name: str) -> dict[str, Any]:
    """What must not change when a daemon dies."""
    inspected = docker.json("inspect", name)[0]
    networks = {
        key: (value["IPAddress"], value["MacAddress"], value["EndpointID"])
        for key, value in inspected["NetworkSettings"]["Networks"].items()
    }
    return {
        "id": inspected["Id"],
        "state": {
            key: inspected["State"][key] for key in ("Status", "ExitCode", "Pid", "StartedAt", "FinishedAt")
        },
        "ports": inspected["NetworkSettings"]["Ports"],
        "networks": networks,
        "mounts": inspected["Mounts"],
        "config": inspected["Config"],
        "host_config": inspected["HostConfig"],
    }


@pytest.mark.parametrize("victims", [("engine",), ("portlayer",), ("engine", "portlayer")], ids="+".join)
def test_containers_survive_their_daemons(
    docker: Docker, vch: Vch, host: Host, victims: tuple[str, ...]
) -> None:
    docker("network", "create", "keep")
    docker("volume", "create", "kept")
    docker("run", "--detach", "--name", "web", "--network", "keep", "--publish", "8070:80", "--publish", "81",
           "--volume", "kept:/v", "busybox", "sh", "-c", SERVE)  # fmt: skip
    docker("run", "--detach", "--name", "counter", "busybox", "sh", "-c", COUNT)
    docker("run", "--name", "done", "busybox", "sh", "-c", "echo bye; exit 9", check=False)
    before = {name: shape(docker, name) for name in ("web", "counter", "done")}
    images = docker.out("images", "--no-trunc")
    vch.kill(*victims)
    assert {name: shape(docker, name) for name in before} == before
    assert docker.out("images", "--no-trunc") == images
    assert docker.out("volume", "ls", "-q") == "kept"
    eventually(lambda: fetch(host, "http://127.0.0.1:8070/") == "hi", "the published port answers")
    assert docker.out("logs", "done") == "bye"
    assert docker.out("exec", "web", "echo", "alive") == "alive"
    assert docker.out("run", "--rm", "--network", "keep", "busybox", "wget", "-qO-", "http://web/") == "hi"
    docker("kill", "counter")
    numbers = [int(line) for line in docker.out("logs", "counter").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    docker("rm", "--force", "--volumes", "web", "counter", "done")
    docker("network", "rm", "keep")
    docker("volume", "rm", "kept")


def test_an_exit_while_the_daemons_are_away_is_found(docker: Docker, vch: Vch) -> None:
    docker(
        "run", "--detach", "--name", "later", "busybox", "sh", "-c", "echo start; sleep 3; echo end; exit 21"
    )
    docker("run", "--detach", "--rm", "--name", "gone", "busybox", "sleep", "2")
    vch.machine("stop", vch.name)
    pids = vch.qemus()
    assert len(pids) == 2
    eventually(
        lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "both VMs ended by themselves"
    )
    vch.machine("start", vch.name)
    assert docker.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "later") == "exited 21"
    assert docker.out("logs", "later").splitlines() == ["start", "end"]
    eventually(lambda: docker("inspect", "gone", check=False).returncode == 1, "--rm is kept")
    docker("rm", "later")


def test_one_qemu_killed_is_one_container_dead(docker: Docker, vch: Vch) -> None:
    docker("run", "--detach", "--name", "victim", "busybox", "sh", "-c", COUNT)
    docker("run", "--detach", "--name", "other", "busybox", "sleep", "1000")
    docker("run", "--detach", "--name", "again", "--restart", "always", "busybox", "sleep", "1000")
    eventually(lambda: "3" in docker.out("logs", "victim").splitlines(), "it counts")
    os.kill(vch.qemu("victim"), signal.SIGKILL)
    os.kill(vch.qemu("again"), signal.SIGKILL)
    eventually(
        lambda: docker.out("inspect", "--format", "{{.State.Status}}", "victim") == "exited", "it is exited"
    )
    state = docker.json("inspect", "victim")[0]["State"]
    assert state["ExitCode"] == 137
    assert docker.out("inspect", "--format", "{{.State.Status}}", "other") == "running"
    eventually(
        lambda: (
            docker.out("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "again") == "running 1"
        ),
        "the restart policy acts",
    )
    docker("start", "victim")
    eventually(lambda: docker.out("logs", "--tail", "1", "victim") != "", "it counts again")
    docker("rm", "--force", "victim", "other", "again")


def test_after_a_reboot_restart_policies_decide(docker: Docker, vch: Vch, host: Host) -> None:
    docker("run", "--detach", "--name", "always", "--restart", "always", "--publish", "8071:80", "busybox",
           "sh", "-c", f"echo up; {SERVE}")  # fmt: skip
    docker("run", "--detach", "--name", "plain", "busybox", "sleep", "1000")
    address = docker.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "always")
    vch.reboot()
    state = "{{.State.Status}} {{.State.ExitCode}}"
    assert docker.out("inspect", "--format", state, "plain") == "exited 137"
    eventually(lambda: docker.out("logs", "always") == "up\nup", "the restart policy acts")
    assert docker.out("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "always") == address
    eventually(lambda: fetch(host, "http://127.0.0.1:8071/") == "hi", "the published port answers")
    docker("rm", "--force", "always", "plain")


def test_half_made_things_are_swept(docker: Docker, vch: Vch) -> None:
    """Kill the port layer in the middle of many creates: each is there whole or not at all."""
    creates = [
        docker.popen("create", "--name", f"half{n}", "--volume", "/v", "busybox", "true") for n in range(6)
    ]
    creates[0].wait(60)
    vch.kill("portlayer")
    for process in creates:
        process.communicate(timeout=60)
    listed = docker.out("ps", "--all", "--quiet", "--no-trunc", "--filter", "name=half").split()
    for place in ("containers", "vms"):
        present = {path.name for path in (vch.root / place).iterdir() if not path.name.startswith(".")}
        assert present == set(listed)
    for container in listed:
        assert json.loads(docker("inspect", container).stdout)[0]["State"]["Status"] == "created"
    if listed:
        docker("rm", "--volumes", *listed)
    docker("volume", "prune", "--all", "--force")
