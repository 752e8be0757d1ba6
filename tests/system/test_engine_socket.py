"""A container with the engine's socket: what CI runners and Testcontainers do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.system.harness import Docker, Vch, run

pytestmark = pytest.mark.system
SOCKET = "/var/run/docker.sock"


def cli(docker: Docker, place: Path) -> list[str]:
    """The docker CLI of this host as a command in a container that has ``place`` at /h."""
    place.mkdir(exist_ok=True)
    binary = shutil.which("docker", path=docker.env["PATH"])
    assert binary is not None
    shutil.copy(binary, place / "docker")
    libraries = [word for word in run("ldd", binary, check=False).stdout.split() if word.startswith("/")]
    for library in libraries:
        shutil.copy(library, place)
    loader = next((Path(word).name for word in libraries if "ld-linux" in word), "")
    return [f"/h/{loader}", "--library-path", "/h", "/h/docker"] if loader else ["/h/docker"]


def test_a_container_drives_the_engine(docker: Docker, vch: Vch) -> None:
    place = docker.host.directory / "shared" / "cli"
    command = " ".join(cli(docker, place))
    docker("run", "--detach", "--name", "runner", "--volume", f"{SOCKET}:{SOCKET}", "--volume", f"{place}:/h",
           "busybox", "sleep", "1000")  # fmt: skip

    def inner(words: str, **options: str) -> str:
        return docker.out("exec", "-i", "runner", "sh", "-c", f"{command} {words}", **options)

    assert inner("ps --format '{{.Names}}'") == "runner"
    assert inner("run --rm -i busybox cat", input="through two engines") == "through two engines"
    assert inner("logs --tail 1 nobody 2>&1 || true").endswith("No such container: nobody")
    vch.kill("engine", "portlayer")
    assert inner("ps --quiet --no-trunc") == docker.out("ps", "--quiet", "--no-trunc")
    mount = next(m for m in docker.json("inspect", "runner")[0]["Mounts"] if m["Destination"] == SOCKET)
    assert (mount["Type"], mount["Source"]) == ("bind", SOCKET)
    docker("rm", "--force", "runner")
