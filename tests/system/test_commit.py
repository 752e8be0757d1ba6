"""diff and commit: of a container that runs, and of one that has ended."""

from __future__ import annotations

import json

import pytest

from tests.system.harness import Docker

pytestmark = pytest.mark.system

SCRIPT = "echo one > /kept; rm /bin/cat; mkdir /d; echo two > /d/two; ln -s two /d/link; read wait"


def test_diff_and_commit_of_a_running_container_and_a_stopped_one(docker: Docker) -> None:
    docker(
        "run",
        "--detach",
        "--interactive",
        "--name",
        "source",
        "--env",
        "FROM=run",
        "busybox",
        "sh",
        "-c",
        SCRIPT,
    )
    expected = {"C /bin", "D /bin/cat", "A /kept", "A /d", "A /d/two", "A /d/link"}
    docker("exec", "source", "sh", "-c", "until [ -L /d/link ]; do sleep 0.1; done")
    assert set(docker.out("diff", "source").splitlines()) == expected
    running = docker.out(
        *("commit", "--author", "me", "--message", "why", "--change", 'CMD ["busybox", "cat", "/d/link"]'),
        *("--change", "ENV A=$FROM B=2", "--change", "LABEL k=v", "source", "made:1"),
    )
    assert docker.out("inspect", "--format", "{{.State.Status}}", "source") == "running"
    shown = docker.json("image", "inspect", "made:1")[0]
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (running, "me", "why")
    assert {"FROM=run", "A=run", "B=2"} <= set(shown["Config"]["Env"])
    assert shown["Config"]["Labels"] == {"k": "v"}
    assert docker.out("run", "--rm", "made:1") == "two"
    docker("kill", "source")
    assert set(docker.out("diff", "source").splitlines()) == expected
    stopped = docker.out("commit", "--change", 'CMD ["busybox", "ls", "/d", "/bin/cat"]', "source")
    parents = docker.json("image", "inspect", stopped, "busybox")
    assert parents[0]["Parent"] == parents[1]["Id"]
    assert len(parents[0]["RootFS"]["Layers"]) == len(parents[1]["RootFS"]["Layers"]) + 1
    listed = docker("run", "--rm", stopped, check=False)
    assert listed.stdout.split() == ["/d:", "link", "two"]
    assert "/bin/cat: No such file" in listed.stderr
    history = [json.loads(line) for line in docker.out("history", "--format", "json", "made:1").splitlines()]
    assert (history[0]["Comment"], history[0]["ID"]) == ("why", running.removeprefix("sha256:")[:12])
    events = docker.out(
        "events", "--since", "5m", "--until", "0s", "--filter", "event=commit", "--format",
        "{{.Actor.Attributes.imageID}} {{.Actor.Attributes.imageRef}}",
    ).splitlines()  # fmt: skip
    assert events == [f"{running} made:1", stopped]
    failed = docker("commit", "--change", "RUN x", "source", check=False)
    assert "run is not a valid change command" in failed.stderr
    docker("rm", "source")
    docker("rmi", "made:1", stopped)
