"""docker-py against the engine (with a port layer in memory): the other client people use."""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import docker
import docker.errors
import docker.types
import pytest

from engine.context import Engine
from tests.engine.conftest import LIMIT
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig

# docker-py leaves the sockets of streams to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Python:
    """docker-py is synchronous: each step runs in a thread while the engine runs in the loop."""

    def __init__(self, config: VchConfig) -> None:
        url = f"unix://{config.paths.docker_socket}"
        self.client: Any = docker.DockerClient(base_url=url, version="1.50", timeout=LIMIT)

    async def __call__(self, step: Callable[[Any], Any]) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(step, self.client), LIMIT)


@pytest.fixture
async def python(engine: Engine, config: VchConfig) -> AsyncIterator[Python]:
    made = Python(config)
    yield made
    made.client.close()


async def test_version_is_negotiated(engine: Engine, config: VchConfig) -> None:
    def step() -> str:
        client: Any = docker.DockerClient(base_url=f"unix://{config.paths.docker_socket}")
        try:
            return str(client.version()["ApiVersion"])
        finally:
            client.close()

    assert await asyncio.to_thread(step) == "1.50"


async def test_run_returns_the_output_and_raises_on_failure(python: Python) -> None:
    assert await python(lambda d: d.containers.run("busybox", ["echo", "hi"], remove=True)) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        await python(lambda d: d.containers.run("busybox", ["exit", "3"], remove=True))
    assert caught.value.exit_status == 3
    with pytest.raises(docker.errors.ImageNotFound):
        await python(lambda d: d.api.create_container("nothing", ["x"]))


async def test_life_of_a_container(python: Python, host: FakeHost) -> None:
    container = await python(
        lambda d: d.containers.run(
            "busybox",
            ["sleep"],
            name="web",
            detach=True,
            ports={"80/tcp": ("127.0.0.1", 8080)},
            labels={"a": "b"},
            environment={"A": "1"},
            volumes={"data": {"bind": "/data", "mode": "ro"}},
            tmpfs={"/t": "size=1m"},
            mem_limit="64m",
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
            ulimits=[docker.types.Ulimit(name="nofile", soft=5, hard=6)],
            mounts=[docker.types.Mount("/more", None, type="tmpfs")],
            cap_add=["NET_ADMIN"],
            dns=["9.9.9.9"],
            extra_hosts={"other": "10.0.0.1"},
            healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000},
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m"}),
        )
    )
    spec = host.machines[container.id].handle.spec
    assert (spec.resources.memory, spec.ports[0].host_port, spec.mounts[0].read_only) == (
        64 << 20,
        8080,
        True,
    )
    await python(lambda d: container.reload())
    assert (container.status, container.name) == ("running", "web")
    assert container.attrs["NetworkSettings"]["Ports"]["80/tcp"] == [
        {"HostIp": "127.0.0.1", "HostPort": "8080"}
    ]
    assert await python(lambda d: [c.name for c in d.containers.list(filters={"label": "a=b"})]) == ["web"]
    for step in ("pause", "unpause", "restart", "stop"):
        await python(lambda d, step=step: getattr(container, step)())
    assert (await python(lambda d: container.wait()))["StatusCode"] == 143
    await python(lambda d: container.rename("crate"))
    await python(lambda d: container.remove(v=True))
    with pytest.raises(docker.errors.NotFound, match="No such container: crate"):
        await python(lambda d: d.containers.get("crate"))


async def test_exec_run(python: Python) -> None:
    container = await python(lambda d: d.containers.run("busybox", ["sleep"], detach=True))
    assert tuple(await python(lambda d: container.exec_run(["echo", "in"]))) == (0, b"in\n")
    assert (await python(lambda d: container.exec_run(["exit", "4"]))).exit_code == 4
    result = await python(lambda d: container.exec_run(["warn", "err"], demux=True))
    assert result.output == (None, b"err\n")
    stream = (await python(lambda d: container.exec_run(["echo", "a", "b"], stream=True))).output
    assert await python(lambda d: b"".join(stream)) == b"a b\n"


async def test_exec_by_socket_with_half_close(python: Python) -> None:
    container = await python(lambda d: d.containers.run("busybox", ["sleep"], detach=True))

    def step(client: Any) -> bytes:
        result = container.exec_run(["cat"], stdin=True, socket=True, tty=False)
        raw = result.output._sock
        try:
            raw.sendall(b"through the socket")
            raw.shutdown(socket.SHUT_WR)
            data = b""
            while piece := raw.recv(4096):
                data += piece
            return data
        finally:
            result.output.close()
            raw.close()

    assert await python(step) == b"\x01\0\0\0\0\0\0\x12through the socket"


async def test_logs_stats_top_diff_archive(python: Python, host: FakeHost) -> None:
    container = await python(lambda d: d.containers.run("busybox", ["echo", "one"], detach=True))
    await python(lambda d: container.wait())
    assert await python(lambda d: container.logs()) == b"one\n"
    assert await python(lambda d: b"".join(container.logs(stream=True, follow=True))) == b"one\n"
    running = await python(lambda d: d.containers.run("busybox", ["sleep"], detach=True))
    assert (await python(lambda d: running.stats(stream=False)))["pids_stats"]["current"] == 3
    assert (await python(lambda d: running.top(ps_args="-o pid,args")))["Processes"] == [["101", "sleep"]]
    assert (await python(lambda d: running.diff()))[0] == {"Path": "/etc", "Kind": 0}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    assert await python(lambda d: running.put_archive("/srv", buffer.getvalue())) is True
    host.machines[running.id].files[b"/srv/file"] = buffer.getvalue()
    chunks, found = await python(lambda d: running.get_archive("/srv/file"))
    assert found["name"] == "file"
    assert await python(lambda d: b"".join(chunks)) == buffer.getvalue()


async def test_events(python: Python) -> None:
    events = await python(lambda d: d.events(decode=True, filters={"type": "container"}))
    await python(lambda d: d.containers.create("busybox", ["sleep"], name="box"))
    event = await python(lambda d: next(events))
    assert (event["Action"], event["Actor"]["Attributes"]["name"]) == ("create", "box")
    events.close()


async def test_volumes_networks_info_df_prune(python: Python) -> None:
    assert (await python(lambda d: d.info()))["Driver"] == "vmdk"
    assert await python(lambda d: d.ping()) is True
    await python(lambda d: d.volumes.create("data"))
    assert [v.name for v in await python(lambda d: d.volumes.list())] == ["data"]
    assert {n.name for n in await python(lambda d: d.networks.list())} == {"bridge", "none"}
    assert set(await python(lambda d: d.df())) >= {"Images", "Containers", "Volumes", "LayersSize"}
    assert (await python(lambda d: d.containers.prune()))["SpaceReclaimed"] == 0
