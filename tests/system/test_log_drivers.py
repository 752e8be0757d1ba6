"""Log drivers and their options through the docker CLI; syslog to servers of all kinds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT, Docker, Vch, eventually

pytestmark = pytest.mark.system


def server(docker: Docker, kind: str, address: str) -> Path:
    """Start one; the file that it writes to."""
    file = docker.host.directory / f"syslog-{kind}"
    docker.host.spawn(
        sys.executable,
        *("-m", "tests.system.syslogserver", kind, address, file),
        log=docker.host.directory / "syslog-server.log",
        cwd=ROOT,
    )
    eventually(file.exists, f"the {kind} server listens")
    return file


def test_syslog_by_udp_from_a_container_that_is_removed_at_once(docker: Docker) -> None:
    got = server(docker, "udp", "5514")
    options = ("--log-driver", "syslog", "--log-opt", "syslog-address=udp://127.0.0.1:5514")
    tag = ("--log-opt", "tag={{.ImageName}}/{{.Name}}")
    script = "echo first; echo bad >&2; printf last"
    docker("run", "--rm", "--name", "speaker", *options, *tag, "busybox", "sh", "-c", script)
    eventually(lambda: got.read_text().count("\n") == 3, "all lines have come")
    lines = sorted(got.read_text().splitlines(), key=lambda line: line.rpartition(" ")[2])
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    for line, priority, word in zip(lines, (27, 30, 30), ("bad", "first", "last"), strict=True):
        assert re.fullmatch(rf"<{priority}>{stamp} busybox/speaker\[\d+\]: {word}", line), line


def test_syslog_by_tcp_outlives_the_port_layer(docker: Docker, vch: Vch) -> None:
    options = ("--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:5515")
    form = ("--log-opt", "syslog-format=rfc5424", "--log-opt", "syslog-facility=local3")
    docker("create", "--name", "steady", "--interactive", *options, *form, "busybox", "cat")
    alone = docker("start", "steady", check=False)
    assert "failed to initialize logging driver: dial tcp 127.0.0.1:5515" in alone.stderr
    got = server(docker, "tcp", "5515")
    with docker.popen("start", "--attach", "--interactive", "steady") as client:
        assert client.stdin is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        eventually(lambda: got.read_text().endswith("one\n"), "the first line has come")
        vch.kill("portlayer")
        eventually(lambda: docker("top", "steady", check=False).returncode == 0, "its guest answers")
        client.stdin.write(b"two\n")
        client.stdin.close()
        client.wait()
    docker("wait", "steady")
    eventually(lambda: got.read_text().endswith("two\n"), "the second line has come")
    identifier = docker.out("inspect", "--format", "{{.Id}}", "steady")[:12]
    for line, word in zip(got.read_text().splitlines(), ("one", "two"), strict=True):
        assert re.fullmatch(rf"<158>1 \S+T\S+ \S+ {identifier} \d+ {identifier} - {word}", line), line
    assert docker.out("logs", "steady") == "one\ntwo"
    docker("rm", "steady")


def test_options_of_the_other_drivers(docker: Docker) -> None:
    got = server(docker, "unixgram", str(docker.host.directory / "log.sock"))
    socket = f"syslog-address=unixgram://{docker.host.directory}/log.sock"
    quiet = ("--log-opt", "cache-disabled=true")
    docker("run", "--name", "mute", "--log-driver", "syslog", "--log-opt", socket, *quiet, "busybox", "id")
    eventually(lambda: "uid=0(root)" in got.read_text(), "it has come")
    assert "does not support reading" in docker("logs", "mute", check=False).stderr
    docker("rm", "mute")

    named = ("--log-opt", "tag={{.Name}}", "--log-opt", "labels=tier", "--log-opt", "env=COLOUR")
    sizes = ("--log-opt", "max-size=1m", "--log-opt", "max-file=3")
    modes = ("--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4m")
    marks = ("--label", "tier=web", "--env", "COLOUR=red")
    docker("run", "--name", "tagged", *marks, *named, *sizes, *modes, "busybox", "echo", "hello")
    assert docker.out("logs", "--details", "tagged") == "COLOUR=red,tag=tagged,tier=web hello"
    shown = docker.json("inspect", "tagged")[0]["HostConfig"]["LogConfig"]
    assert shown["Type"] == "json-file"
    assert shown["Config"]["mode"] == "non-blocking"
    docker("rm", "tagged")
    unknown = docker("create", "--log-opt", "colour=red", "busybox", check=False)
    assert "unknown log opt 'colour' for json-file log driver" in unknown.stderr
