"""docker pause, unpause and update, alone and together, on one container."""

from __future__ import annotations

import pytest

from tests.system.harness import Docker

pytestmark = pytest.mark.system

COUNT = "i=0; trap 'echo hup' HUP; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done"


def state(docker: Docker, name: str) -> str:
    return docker.out("inspect", "--format", "{{.State.Status}} {{.State.Paused}}", name)


def test_pause_and_update(docker: Docker) -> None:
    docker("run", "--detach", "--name", "still", "--memory", "64m", "busybox", "sh", "-c", COUNT)
    docker("pause", "still")
    assert state(docker, "still") == "paused true"
    assert docker.out("ps", "--filter", "status=paused", "--format", "{{.Names}}") == "still"
    assert "(Paused)" in docker.out("ps", "--format", "{{.Status}}")
    for words in (("exec", "still", "true"), ("attach", "still"), ("rm", "still"), ("pause", "still")):
        refused = docker(*words, check=False)
        assert refused.returncode != 0
        assert "paused" in refused.stderr

    docker("update", "--memory", "48m", "--memory-swap", "-1", "--pids-limit", "30", "still")
    docker("kill", "--signal", "HUP", "still")  # ends the pause, as in Docker
    assert state(docker, "still") == "running false"
    docker("pause", "still")
    docker("unpause", "still")
    limits = docker.out("exec", "still", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max")
    assert limits.split() == [str(48 << 20), "30"]

    docker("update", "--cpus", "0.5", "--pids-limit", "-1", "--restart", "on-failure:3", "still")
    limits = docker.out("exec", "still", "cat", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/pids.max")
    assert limits.split() == ["50000", "100000", "max"]
    shown = docker.json("inspect", "still")[0]["HostConfig"]
    assert (shown["NanoCpus"], shown["Memory"], shown["MemorySwap"]) == (500_000_000, 48 << 20, -1)
    assert shown["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    too_much = docker("update", "--memory", "64g", "still", check=False)
    assert "needs the container to be stopped first" in too_much.stderr

    docker("pause", "still")
    docker("stop", "--time", "1", "still")
    assert docker.out("inspect", "--format", "{{.State.ExitCode}} {{.State.Paused}}", "still") == "137 false"
    docker("update", "--memory", "1g", "still")  # its next VM has the room
    events = docker.out("events", "--since", "5m", "--until", "0s", "--filter", "container=still").split("\n")
    words = [line.split()[2] for line in events]
    assert [word for word in words if "pause" in word] == ["pause", "unpause"] * 3
    docker("rm", "still")
