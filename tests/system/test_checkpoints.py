"""docker checkpoint create, ls, rm and start --checkpoint."""

from __future__ import annotations

import sys

import pytest

from tests.system.harness import Docker, Vch, eventually

pytestmark = pytest.mark.system

COUNT = "mkdir /w; httpd -h /w; i=0; while true; do i=$((i+1)); echo $i > /w/count; echo $i; sleep 0.1; done"


def count(docker: Docker) -> int:
    return int(docker.out("exec", "ticker", "cat", "/w/count") or 0)


def last(docker: Docker) -> int:
    return int(docker.out("logs", "--tail", "1", "ticker"))


def test_checkpoints(docker: Docker, vch: Vch) -> None:
    docker("run", "--detach", "--name", "ticker", "--publish", "8099:80", "busybox", "sh", "-c", COUNT)
    eventually(lambda: count(docker) > 3, "it counts")
    docker("checkpoint", "create", "--leave-running", "ticker", "early")
    early = count(docker)
    eventually(lambda: count(docker) > early + 20, "it counts on")
    docker("checkpoint", "create", "ticker", "late")
    assert (
        docker.out("inspect", "--format", "{{.State.Status}}/{{.State.ExitCode}}", "ticker") == "exited/137"
    )
    late = last(docker)
    assert docker.out("checkpoint", "ls", "ticker").split() == ["CHECKPOINT", "NAME", "early", "late"]

    docker("start", "--checkpoint", "late", "ticker")
    assert late <= count(docker) < late + 50, "it goes on where it ended"
    vch.kill("portlayer")
    assert docker.out("inspect", "--format", "{{.State.Status}}", "ticker") == "running"
    docker("kill", "ticker")
    docker("start", "--checkpoint", "early", "ticker")
    assert early - 10 < count(docker) < late, "disk and memory are the earlier ones"
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8099/count', timeout=10).read())"
    assert "b'" in docker.host.run(sys.executable, "-c", fetch).stdout, "its network is there"

    twice = docker("checkpoint", "create", "ticker", "early", check=False)
    assert "checkpoint with name early already exists for container ticker" in twice.stderr
    docker("checkpoint", "rm", "ticker", "early")
    gone = docker("checkpoint", "rm", "ticker", "early", check=False)
    assert "checkpoint early does not exist for container ticker" in gone.stderr
    docker("kill", "ticker")
    absent = docker("start", "--checkpoint", "early", "ticker", check=False)
    assert "checkpoint early does not exist for container /ticker" in absent.stderr
    stopped = docker("checkpoint", "create", "ticker", "more", check=False)
    assert "is not running" in stopped.stderr
    assert "checkpoint" in docker.out(
        "events", "--since", "5m", "--until", "0s", "--filter", "event=checkpoint"
    )
    docker("rm", "ticker")
