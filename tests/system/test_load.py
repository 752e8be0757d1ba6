"""A crowd at one container VM: idle and sleeping clients cost what they cost, and nobody is in the way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker as docker_py
import pytest

from tests.system.harness import Docker, Vch, eventually

pytestmark = pytest.mark.system

ATTACHES, FOLLOWERS, EXECS, AT_ONCE = 100, 20, 100, 100
GROWTH = 64 << 20  # bytes that a daemon may keep of all this


def memory(process: int) -> int:
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def request(vch: Vch, method: str, path: str, body: object = None) -> socket.socket:
    """A connection that has asked; what it does not read stays unread."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(240)
    connection.connect(str(vch.socket))
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + data)
    return connection


@pytest.fixture
def box(docker: Docker) -> Iterator[str]:
    name = "crowded"
    docker(
        "run",
        "--detach",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "while :; do head -c 100000 /dev/zero; sleep 1; done",
    )
    yield name
    docker("rm", "--force", name)


def test_a_crowd_at_one_container(vch: Vch, docker: Docker, box: str) -> None:
    daemons = [vch.process("engine"), vch.process("portlayer")]
    before = [(memory(process), descriptors(process)) for process in daemons]
    with contextlib.ExitStack() as stack:
        for _ in range(ATTACHES):
            stack.enter_context(request(vch, "POST", f"/containers/{box}/attach?stream=1&stderr=1"))
        for _ in range(FOLLOWERS):
            stack.enter_context(request(vch, "GET", f"/containers/{box}/logs?follow=1&stdout=1"))
        stack.enter_context(request(vch, "POST", f"/containers/{box}/attach?stream=1&stdout=1&logs=1"))
        stack.enter_context(request(vch, "GET", "/events"))

        client = docker_py.DockerClient(
            base_url=f"unix://{vch.socket}", version="1.50", timeout=280, max_pool_size=AT_ONCE
        )
        stack.callback(client.close)
        container = client.containers.get(box)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = pool.map(lambda number: container.exec_run(["echo", str(number)]), range(EXECS))
            assert [result.output for result in results] == [f"{n}\n".encode() for n in range(EXECS)]
        assert docker.out("ps", "--format", "{{.Names}}") == box
        grown = [memory(process) - start for process, (start, _) in zip(daemons, before, strict=True)]
        assert max(grown) < GROWTH, grown
    for process, (_, held) in zip(daemons, before, strict=True):
        eventually(
            lambda process=process, held=held: descriptors(process) <= held + 2, "all connections are closed"
        )
