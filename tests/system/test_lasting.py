"""Clients that follow a container while its port layer is killed: a pause, and not a byte lost or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Docker, Vch, eventually

pytestmark = pytest.mark.system

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


class Client:
    """A docker command with its output in a file."""

    def __init__(self, docker: Docker, path: Path, *words: str) -> None:
        self.path = path
        with path.open("wb") as output, path.with_suffix(".err").open("wb") as errors:
            self.process = docker.popen(*words, stdout=output, stderr=errors)

    @property
    def output(self) -> bytes:
        return self.path.read_bytes()

    def numbers(self, column: int = 0) -> list[int]:
        """Of each whole line the word in that column."""
        lines = self.output[: self.output.rfind(b"\n") + 1].splitlines()
        return [int(line.split()[column]) for line in lines]

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def container(docker: Docker) -> Iterator[str]:
    docker("run", "--detach", "--name", "count", "busybox", "sh", "-c", COUNT)
    yield "count"
    docker("rm", "--force", "count")


def whole(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_followers_survive_the_port_layer(docker: Docker, vch: Vch, container: str, tmp_path: Path) -> None:
    clients = {
        "logs": Client(docker, tmp_path / "logs", "logs", "--follow", container),
        "tail": Client(
            docker, tmp_path / "tail", "logs", "--follow", "--tail", "2", "--timestamps", container
        ),
        "attach": Client(docker, tmp_path / "attach", "attach", "--no-stdin", container),
    }
    column = {"tail": 1}
    for name, client in clients.items():
        eventually(lambda c=client, n=name: len(c.numbers(column.get(n, 0))) > 5, f"{name} follows")
    for _ in range(2):
        vch.kill("portlayer")
        seen = int(docker.out("logs", "--tail", "1", container))
        for name, client in clients.items():
            eventually(
                lambda c=client, n=name, s=seen: c.numbers(column.get(n, 0))[-1] > s + 20, f"{name} goes on"
            )
    docker("kill", container)
    for name, client in clients.items():
        client.end()
        assert whole(client.numbers(column.get(name, 0))), name
    assert clients["logs"].numbers()[0] == 1
    assert clients["logs"].output == docker("logs", container).stdout.encode()


def test_what_is_typed_while_the_port_layer_dies_arrives_once(
    docker: Docker, vch: Vch, tmp_path: Path
) -> None:
    docker("create", "--interactive", "--name", "echo", "busybox", "cat")
    echo = Client(docker, tmp_path / "echo", "start", "--attach", "--interactive", "echo")
    typed = b"first\n"
    echo.type(typed)
    eventually(lambda: echo.output == typed, "it runs")
    for batch in range(3):
        for number in range(1000):
            line = b"%d %d\n" % (batch, number)
            echo.type(line)
            typed += line
        if batch < 2:
            vch.kill("portlayer")
    eventually(lambda: len(echo.output) >= len(typed), "everything comes back")
    echo.end()
    assert echo.output == typed
    assert docker.out("inspect", "--format", "{{.State.ExitCode}}", "echo") == "0"
    assert docker("logs", "echo").stdout.encode() == typed
    docker("rm", "echo")
