"""Clients that nobody here wrote, unchanged, against a real VCH: over its unix socket, TLS and SSH."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import ROOT, Docker, Host, Result, Vch, eventually

pytestmark = pytest.mark.system

SUITES = Path(__file__).parent / "suites"
CACHE = ROOT / ".cache/clients"
COMPOSE = (["docker-compose"], [str(CACHE / "compose/usr/libexec/docker/cli-plugins/docker-compose")])
SSH_PORT = 2222


def suite(docker: Docker, *command: str | Path, **environment: str) -> None:
    """Run a client's script in the host's network namespace."""
    # requests prefers a machine's own certificates to those it is told
    given = {name: value for name, value in docker.env.items() if not name.endswith("_CA_BUNDLE")}
    result = docker.host.run(*command, check=False, env={**given, **environment}, timeout=280)
    assert (result.returncode, result.stdout.splitlines()[-1:]) == (0, ["ok"]), result.stdout + result.stderr


def test_docker_py(docker: Docker) -> None:
    suite(docker, sys.executable, SUITES / "docker_py.py", "full")


def test_docker_py_over_tls(vch: Vch, docker: Docker) -> None:
    suite(docker, sys.executable, SUITES / "docker_py.py", **vch.info["environment"])


def test_aiodocker(docker: Docker) -> None:
    suite(docker, sys.executable, SUITES / "aiodocker_suite.py")


def test_testcontainers(docker: Docker) -> None:
    suite(docker, sys.executable, SUITES / "testcontainers_suite.py")


def test_dockerode(docker: Docker) -> None:
    suite(docker, "node", SUITES / "dockerode_suite.js", NODE_PATH=str(CACHE / "node/node_modules"))


@pytest.mark.parametrize("command", COMPOSE, ids=["v1", "v2"])
def test_compose(docker: Docker, tmp_path: Path, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} cannot be had here (tools/clients.sh)")
    project = [*command, "--project-name", "sea", "--file", str(SUITES / "compose.yaml")]

    def compose(*words: str, check: bool = True) -> Result:
        return docker.host.run(*project, *words, check=check, env=docker.env, timeout=280)

    try:
        compose("up", "--detach")
        names = docker.out("ps", "--filter", "label=com.docker.compose.project=sea", "--format", "{{.Names}}")
        assert len(names.split()) == 2
        fetch = ("wget", "-q", "-O", "-", "http://db/")
        eventually(
            lambda: compose("exec", "-T", "web", *fetch, check=False).stdout == "from the db\n",
            "the web service reaches the other one by its name",
        )
        assert "ready" in compose("logs", "web").stdout
        assert "127.0.0.1:" in compose("port", "web", "80").stdout
        unchanged = docker.out("ps", "--quiet", "--no-trunc")
        compose("up", "--detach")
        assert docker.out("ps", "--quiet", "--no-trunc") == unchanged
        assert compose("run", "--rm", "-T", "web", "echo", "one-off").stdout == "one-off\n"
        compose("stop", "--timeout", "1", "web")
        compose("start", "web")
        assert docker.out("volume", "ls", "--quiet") == "sea_data"
    finally:
        compose("down", "--volumes", "--timeout", "1")
    assert docker.out("network", "ls", "--quiet", "--filter", "name=sea") == ""


@pytest.fixture
def ssh(vch: Vch, host: Host, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An ssh server on the namespace's loopback; the environment of a client that may log in."""
    for name in ("server", "client"):
        host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
    authorized = tmp_path / "authorized"
    authorized.write_text((tmp_path / "client.pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    # The far side's environment: where its docker CLI is, and which daemon that talks to.
    path = f"{Path(shutil.which('docker') or ROOT / '.cache/bin/docker').parent}:/usr/bin:/bin"
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {SSH_PORT}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'server'}\n"
        f"AuthorizedKeysFile {authorized}\nStrictModes no\nPidFile none\nUsePAM no\n"
        f"PermitRootLogin prohibit-password\nSetEnv PATH={path} DOCKER_HOST=unix://{vch.socket}\n"
    )
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {tmp_path / 'client'} "
        f'-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"\n'
    )
    client.chmod(0o755)
    server = host.spawn("/usr/sbin/sshd", "-D", "-e", "-f", config, log=tmp_path / "sshd.log")
    environment = {
        "PATH": f"{client.parent}:{os.environ['PATH']}:{ROOT / '.cache/bin'}",
        "DOCKER_HOST": f"ssh://root@127.0.0.1:{SSH_PORT}",
    }
    probe = [client, "-p", str(SSH_PORT), "root@127.0.0.1", "true"]
    eventually(lambda: host.run(*probe, check=False).returncode == 0, "the ssh server answers")
    yield environment
    server.terminate()
    server.wait(10)


def test_docker_over_ssh(vch: Vch, docker: Docker, ssh: dict[str, str]) -> None:
    """``docker -H ssh://``: by the far side's default, and by the VCH's socket in the URL."""
    far = Docker(docker.host, docker.socket, docker.config, ssh)
    assert far.out("run", "--rm", "-i", "busybox", "cat", input="over ssh") == "over ssh"
    named = {**ssh, "DOCKER_HOST": f"{ssh['DOCKER_HOST']}{vch.socket}"}
    assert (
        Docker(docker.host, docker.socket, docker.config, named).out("info", "--format", "{{.Name}}")
        == "main"
    )


def test_docker_py_over_ssh(docker: Docker, ssh: dict[str, str]) -> None:
    suite(docker, sys.executable, SUITES / "docker_py.py", **ssh)
