"""A VCH with 1,000 containers: what listing them takes, and what the daemons need for them.

The containers are created and never started: a list costs the same for them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

from bench.memory import rss
from bench.series import Report
from tests.system.harness import Docker, Vch

__all__ = ["measure_crowd", "measure_crowded_daemons"]

COUNT = 1000
LISTS = 10
_AT_ONCE = 4
_NETWORK = "bench-crowd"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(path: Path, method: str, target: str, body: object = None) -> bytes:
    with contextlib.closing(_Connection(path)) as connection:
        content = None if body is None else json.dumps(body)
        connection.request(method, target, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{method} {target}: {answer.status} {text.decode(errors='replace')}"
        return text


@contextlib.contextmanager
def _crowd(docker: Docker) -> Iterator[None]:
    # The default bridge has addresses for 253.
    docker("network", "create", "--subnet", "10.213.0.0/16", _NETWORK)
    config = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": _NETWORK}}
    names = [f"bench-crowd-{number}" for number in range(COUNT)]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(
            pool.map(
                lambda name: _ask(docker.socket, "POST", f"/containers/create?name={name}", config), names
            )
        )
        try:
            yield
        finally:
            list(pool.map(lambda name: _ask(docker.socket, "DELETE", f"/containers/{name}"), names))
            docker("network", "rm", _NETWORK)


def measure_crowd(report: Report, subject: str, docker: Docker) -> None:
    """Listing, of an engine by itself and with the CLI."""
    with _crowd(docker):
        _list(report, subject, docker)


def measure_crowded_daemons(report: Report, vch: Vch) -> None:
    """The same, and the memory of our two daemons."""
    with _crowd(vch.docker):
        _list(report, "mooring", vch.docker)
        together = 0
        for module in ("portlayer", "engine"):
            size = rss(vch.process(module))
            together += size
            report.record("mooring", f"RSS of {module}, {COUNT:,} containers", size / 1e6, "MB")
        report.record("mooring", f"RSS of both, {COUNT:,} containers", together / 1e6, "MB")


def _list(report: Report, subject: str, docker: Docker) -> None:
    target = "/containers/json?all=1"
    assert len(json.loads(_ask(docker.socket, "GET", target))) >= COUNT
    alone = report.series(subject, f"list of {COUNT:,} containers, no CLI")
    alone.repeat(LISTS, lambda: _ask(docker.socket, "GET", target))
    report.series(subject, f"docker ps --all of {COUNT:,}").repeat(LISTS, lambda: docker("ps", "--all"))
