"""Containers from create to rm: states, exec, logs, events, wait, rename, top, stats."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime

import pytest

from tests.system.harness import Docker, eventually

pytestmark = pytest.mark.system


def status(docker: Docker, name: str) -> str:
    return docker.out("inspect", "--format", "{{.State.Status}}", name)


def test_every_state_in_turn(docker: Docker) -> None:
    docker("create", "--name", "turn", "busybox", "sleep", "1000")
    assert status(docker, "turn") == "created"
    docker("start", "turn")
    assert status(docker, "turn") == "running"
    docker("pause", "turn")
    assert status(docker, "turn") == "paused"
    refused = docker("exec", "turn", "true", check=False)
    assert "is paused" in refused.stderr
    docker("unpause", "turn")
    docker("restart", "--time", "0", "turn")
    assert status(docker, "turn") == "running"
    refused = docker("rm", "turn", check=False)
    assert "container is running" in refused.stderr
    docker("kill", "turn")
    assert status(docker, "turn") == "exited"
    assert docker.out("inspect", "--format", "{{.State.ExitCode}}", "turn") == "137"
    docker("rename", "turn", "round")
    docker("rm", "round")
    assert "No such container" in docker("start", "round", check=False).stderr


def test_names_are_unique(docker: Docker) -> None:
    docker("create", "--name", "only", "busybox", "true")
    second = docker("create", "--name", "only", "busybox", "true", check=False)
    assert 'The container name "/only" is already in use by container' in second.stderr
    docker("rm", "only")


def test_exec_with_all_its_flags(docker: Docker) -> None:
    docker("run", "--detach", "--name", "ex", "busybox", "sleep", "1000")
    seen = docker.out(
        *("exec", "--user", "nobody", "--workdir", "/tmp", "--env", "X=1", "ex"),
        *("sh", "-c", "id -un; pwd; echo $X; echo err >&2; exit 4"),
        check=False,
    )
    assert seen.splitlines() == ["nobody", "/tmp", "1"]
    assert docker("exec", "ex", "sh", "-c", "exit 4", check=False).returncode == 4
    assert docker("exec", "-i", "ex", "cat", input="through").stdout == "through"
    docker("exec", "--detach", "ex", "touch", "/detached")
    eventually(lambda: docker("exec", "ex", "test", "-e", "/detached", check=False).returncode == 0, "it ran")
    missing = docker("exec", "ex", "no-such", check=False)
    assert missing.returncode in (126, 127)  # dockerd changed its mind between versions
    assert "executable file not found" in missing.stdout + missing.stderr
    docker("rm", "--force", "ex")


def test_logs(docker: Docker) -> None:
    script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done; sleep 1; echo last"
    docker("run", "--name", "log", "busybox", "sh", "-c", script)
    both = docker("logs", "log")
    assert both.stdout.splitlines() == ["out1", "out2", "out3", "out4", "out5", "last"]
    assert both.stderr.splitlines() == ["err1", "err2", "err3", "err4", "err5"]
    assert docker.out("logs", "--tail", "1", "log") == "last"
    stamp, word = docker.out("logs", "--tail", "1", "--timestamps", "log").split()
    assert word == "last"
    assert datetime.fromisoformat(stamp[:26] + "+00:00").year >= 2024
    assert docker.out("logs", "--since", stamp, "log") == "last"
    assert "last" not in docker.out("logs", "--until", stamp[:19] + "Z", "log")
    docker("rm", "log")


def test_following_logs_ends_with_the_container(docker: Docker) -> None:
    script = "for i in $(seq 20); do echo line $i; sleep 0.05; done"
    docker("run", "--detach", "--name", "follow", "busybox", "sh", "-c", script)
    assert docker.out("logs", "--follow", "follow").splitlines() == [f"line {i}" for i in range(1, 21)]
    docker("rm", "follow")


def test_ten_megabytes_arrive_whole_and_in_order(docker: Docker) -> None:
    result = docker("run", "--rm", "busybox", "seq", "1400000")
    assert result.stdout == "".join(f"{i}\n" for i in range(1, 1400001))


def test_wait_events_and_auto_remove(docker: Docker) -> None:
    process = docker.popen("events", "--filter", "label=watched=yes", "--format", "{{json .}}")
    docker(
        "create", "--name", "ev", "--label", "watched=yes", "--rm", "busybox", "sh", "-c", "sleep 1; exit 6"
    )
    docker("start", "ev")
    assert docker.out("wait", "ev") == "6"
    seen: list[str] = []
    assert process.stdout is not None
    while not seen or seen[-1] != "destroy":
        event = json.loads(process.stdout.readline())
        seen.append(event["Action"])
    assert seen[:2] == ["create", "start"]
    assert "die" in seen
    process.kill()
    process.communicate()
    assert docker("inspect", "ev", check=False).returncode == 1


def test_top_and_stats(docker: Docker) -> None:
    docker("run", "--detach", "--name", "busy", "--memory", "64m", "busybox", "sh", "-c", "sleep 1000 & wait")
    top = docker.out("top", "busy")
    assert "sleep 1000" in top
    assert "tether" not in top
    stats = json.loads(docker.out("stats", "--no-stream", "--format", "{{json .}}", "busy"))
    assert stats["MemUsage"].endswith("/ 64MiB")
    assert int(stats["PIDs"]) == 2
    docker("rm", "--force", "busy")


def test_start_attach_and_interactive(docker: Docker) -> None:
    docker("create", "--name", "again", "--interactive", "busybox", "cat")
    assert docker("start", "--attach", "--interactive", "again", input="first").stdout == "first"
    assert docker("start", "--attach", "--interactive", "again", input="second").stdout == "second"
    assert docker.out("logs", "again") == "firstsecond"
    docker("rm", "again")


def test_a_reader_that_goes_away_ends_the_writer_or_not_as_docker_does(docker: Docker) -> None:
    head = subprocess.run(
        ["sh", "-c", "docker run --rm --name pipe busybox seq 1000000 | head -n 1"],
        env=docker.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert head.stdout == "1\n"
    eventually(lambda: docker("inspect", "pipe", check=False).returncode == 1, "removed when done")


def test_ps_filters(docker: Docker) -> None:
    docker("network", "create", "pf")
    up = docker.out("run", "--detach", "--name", "up", "--network", "pf", "--publish", "9090:90", "--label", "x=y",
                    "busybox", "sleep", "1000")  # fmt: skip
    down = docker.out("run", "--detach", "--name", "down", "busybox", "sh", "-c", "exit 3")
    docker("wait", "down")

    def found(*filters: str) -> set[str]:
        words = [word for item in filters for word in ("--filter", item)]
        return set(docker.out("ps", "--all", "--quiet", "--no-trunc", *words).split())

    assert found("status=running") == {up}
    assert found("exited=3") == {down}
    assert found("name=^/up$") == found("network=pf") == found("publish=9090") == found("label=x=y") == {up}
    assert found("ancestor=busybox", "status=exited") == {down}
    assert found("since=up") == {down}
    assert found("before=down") == {up}
    assert found(f"id={up[:12]}") == {up}
    docker("rm", "--force", "up", "down")
    docker("network", "rm", "pf")
