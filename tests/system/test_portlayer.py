"""The port layer with real VMs, through gRPC: no engine, no docker."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from portlayer.portlayer_pb2 import (
    AttachOpen,
    ContainerEvent,
    ContainerRef,
    ContainerState,
    ContainerStatsRequest,
    CopyInChunk,
    Endpoint,
    EventsSubscription,
    InputChunk,
    ListContainersRequest,
    LogConfig,
    Network,
    PathRequest,
    PortBinding,
    ResizeContainerRequest,
    RestartPolicy,
    UpdateContainerRequest,
    Volume,
    VolumeMount,
    VolumeRef,
)
from tests.system.harness import Host
from tests.system.portlayer import Client, PortLayer, busybox_layer, reason
from tether.tether_pb2 import HealthCheck, HealthEvent, Resources

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def portlayer(host: Host) -> AsyncIterator[PortLayer]:
    made = PortLayer(host)
    await made.start()
    yield made
    if made.process.poll() is not None:
        await made.start()
    async with made.client() as client:
        for container in (await client.containers.List(ListContainersRequest())).containers:
            await client.remove(container.handle.id)
    assert await made.stop() == 0


@pytest_asyncio.fixture(loop_scope="module")
async def client(portlayer: PortLayer) -> AsyncIterator[Client]:
    async with portlayer.client() as made:
        yield made
        for container in (await made.containers.List(ListContainersRequest())).containers:
            await made.remove(container.handle.id)


@pytest_asyncio.fixture(loop_scope="module")
async def layer(client: Client) -> str:
    return await client.put_layer(busybox_layer())


@pytest.fixture(autouse=True)
def log_on_failure(request: pytest.FixtureRequest) -> object:
    yield
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed and "portlayer" in request.fixturenames:
        print("\n".join(request.getfixturevalue("portlayer").log.read_text().splitlines()[-60:]))


# ---------------------------------------------------------------- life


async def test_a_container_lives_and_dies(client: Client, layer: str) -> None:
    container = await client.create(layer, "sh", "-c", "echo out; echo err >&2; uname -r; exit 3")
    stream = await client.attach(container)
    state = await client.start(container)
    assert state.pid > 0
    await stream.end()
    assert stream.out.startswith(b"out\n")
    assert stream.err == b"err\n"
    assert stream.code == 3
    reply = await client.wait(container)
    assert reply.exit_code == 3
    final = (await client.get(container)).state
    assert final.status == ContainerState.EXITED
    assert 0 < final.started_at <= final.finished_at
    assert await client.logs(container, stderr=False) == stream.out
    await client.remove(container)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.get(container)
    assert reason(caught.value) == "NO_SUCH_CONTAINER"


async def test_a_command_that_is_not_there(client: Client, layer: str) -> None:
    container = await client.create(layer, "nonsense")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start(container)
    metadata = dict(caught.value.trailing_metadata())
    assert metadata["mooring-reason"] == "LAUNCH_FAILED"
    assert metadata["mooring-exit-code"] == "127"
    assert "nonsense" in caught.value.details()
    state = (await client.get(container)).state
    assert (state.status, state.exit_code) == (ContainerState.CREATED, 127)


async def test_stop_ends_a_process_that_listens_and_one_that_does_not(client: Client, layer: str) -> None:
    polite = await client.run(layer, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")
    stubborn = await client.run(layer, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    assert (await client.stop(polite)).exit_code == 7
    assert (await client.stop(stubborn, timeout=1)).exit_code == 137


async def test_start_again_keeps_the_disk_and_the_logs(client: Client, layer: str) -> None:
    container = await client.run(layer, "sh", "-c", "echo x >> /n; cat /n | wc -l")
    await client.wait(container)
    await client.start(container)
    await client.wait(container)
    assert (await client.logs(container)).split() == [b"1", b"2"]


async def test_events_are_pushed_in_order(client: Client, layer: str) -> None:
    events = client.system.Events(EventsSubscription())
    assert (await events.read()).ready
    container = await client.run(layer, "true")
    await client.wait(container)
    kinds = []
    while "DIED" not in kinds:
        event = await events.read()
        if event.container.id == container:
            kinds.append(ContainerEvent.Kind.Name(event.container.kind))
    assert kinds == ["CREATED", "STARTED", "DIED"]
    events.cancel()


async def test_pause_stops_the_clockwork(client: Client, layer: str) -> None:
    container = await client.run(layer, "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    stream = await client.attach(container)
    await stream.until(b"tick")
    await client.containers.Pause(ContainerRef(id=container))
    assert (await client.get(container)).state.status == ContainerState.PAUSED
    before = await client.logs(container)
    await asyncio.sleep(0.3)
    assert await client.logs(container) == before
    await client.containers.Unpause(ContainerRef(id=container))
    seen = len(stream.out)
    while len(stream.out) <= seen:
        await stream.until(b"tick")
        stream.out = stream.out[: 0 or None]
        assert await stream._next()
    await client.kill(container)
    stream.cancel()


async def test_a_restart_policy_restarts(client: Client, layer: str) -> None:
    policy = RestartPolicy(condition=RestartPolicy.ON_FAILURE, maximum_retries=1)
    container = await client.create(layer, "sh", "-c", "echo run; exit 5", restart=policy)
    await client.start(container)
    reply = await client.wait(container)
    while (await client.get(container)).state.status != ContainerState.EXITED:
        reply = await client.wait(container)
    assert reply.exit_code == 5
    assert (await client.get(container)).state.restart_count == 1
    assert await client.logs(container) == b"run\nrun\n"


async def test_health_is_reported(client: Client, layer: str) -> None:
    check = HealthCheck(
        test=["sh", "-c", "echo fine"], interval=200_000_000, timeout=5_000_000_000, retries=1
    )
    events = client.system.Events(EventsSubscription())
    await events.read()
    container = await client.run(layer, "sleep", "1000", health=check)
    while True:
        event = await events.read()
        if event.container.id == container and event.container.kind == ContainerEvent.HEALTH:
            break
    events.cancel()
    state = (await client.get(container)).state
    assert state.health == HealthEvent.HEALTHY
    assert state.probes[-1].output == "fine\n"


# ---------------------------------------------------------------- interaction


async def test_stdin_written_before_the_start_reaches_the_process(client: Client, layer: str) -> None:
    container = await client.create(layer, "cat", open_stdin=True)
    stream = await client.attach(container, stdin=True)
    data = os.urandom(300_000).hex().encode()
    half = len(data) // 2

    async def feed() -> None:
        await stream.write(data[:half])
        await stream.write(data[half:], close=True)

    feeding = asyncio.create_task(feed())
    await client.start(container)
    await feeding
    await stream.end()
    assert stream.out == data
    assert stream.code == 0


async def test_a_terminal(client: Client, layer: str) -> None:
    container = await client.create(layer, "sh", tty=True, open_stdin=True)
    stream = await client.attach(container, stdin=True)
    await client.start(container)
    await client.containers.Resize(ResizeContainerRequest(id=container, rows=33, columns=77))
    await stream.write(b"stty size\n")
    await stream.until(b"33 77")
    await stream.write(b"exit 4\n")
    await stream.end()
    assert stream.code == 4


async def test_exec(client: Client, layer: str) -> None:
    container = await client.run(layer, "sleep", "1000")
    plain = await (await client.exec(container, "sh", "-c", "echo out; echo err >&2; exit 9")).end()
    assert (plain.out, plain.err, plain.code) == (b"out\n", b"err\n", 9)
    cat = await client.exec(container, "cat", stdin=True)
    data = os.urandom(200_000).hex().encode()
    await cat.write(data, close=True)
    await cat.end()
    assert (cat.out, cat.code) == (data, 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.exec(container, "nonsense")
    assert dict(caught.value.trailing_metadata())["mooring-exit-code"] == "127"
    user = await (await client.exec(container, "id", "-u", user="user")).end()
    assert user.out == b"1000\n"


async def test_an_exec_ends_with_its_container(client: Client, layer: str) -> None:
    container = await client.run(layer, "sleep", "1000")
    stream = await client.exec(container, "sleep", "1000")
    await client.kill(container)
    await stream.end()
    assert stream.code == 137


async def test_logs_tail_since_and_follow(client: Client, layer: str) -> None:
    container = await client.run(layer, "sh", "-c", "seq 1 5000; sleep 1000")
    following = client.interaction.Logs(logs_request(container, follow=True))
    seen = b""
    while b"5000\n" not in seen:
        seen += (await following.read()).data
    assert seen == b"".join(b"%d\n" % n for n in range(1, 5001))
    assert await client.logs(container, tail=3) == b"4998\n4999\n5000\n"
    lines = [r async for r in client.interaction.Logs(logs_request(container, tail=2, lines=True))]
    assert [record.data for record in lines] == [b"4999\n", b"5000\n"]
    assert await client.logs(container, since=lines[-1].time + 1) == b""
    await client.kill(container)
    assert await following.read() is grpc.aio.EOF


def logs_request(container: str, **fields: object) -> object:
    from portlayer.portlayer_pb2 import LogsRequest

    return LogsRequest(id=container, **({"stdout": True, "stderr": True, "tail": -1} | fields))


async def test_a_flood_of_output_is_complete(client: Client, layer: str) -> None:
    container = await client.create(
        layer, "sh", "-c", "yes 0123456789abcdef | head -c 50000000 | tr -d '\\n'; exit 0"
    )
    stream = await client.attach(container)
    await client.start(container)
    await stream.end()
    assert len(stream.out) == 50_000_000 // 17 * 16 + 50_000_000 % 17
    assert len(await client.logs(container)) == len(stream.out)


async def test_logs_are_rotated(client: Client, layer: str) -> None:
    log = LogConfig(max_size=200_000, max_files=3)
    container = await client.run(layer, "sh", "-c", "for i in $(seq 1 40000); do echo line $i; done", log=log)
    await client.wait(container)
    got = (await client.logs(container)).split(b"\n")
    assert got[-2] == b"line 40000"
    numbers = [int(line.split()[1]) for line in got[:-1]]
    assert numbers == list(range(numbers[0], 40001)), "a hole"


async def test_driver_none_refuses_logs_but_attach_works(client: Client, layer: str) -> None:
    container = await client.create(layer, "echo", "hi", log=LogConfig(driver="none"))
    stream = await client.attach(container)
    await client.start(container)
    assert (await stream.end()).out == b"hi\n"
    with pytest.raises(grpc.aio.AioRpcError, match="does not support reading"):
        await client.logs(container)


async def test_files_in_and_out_running_and_stopped(client: Client, layer: str) -> None:
    container = await client.run(layer, "sleep", "1000")

    async def put(name: str, data: bytes) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        def chunks() -> object:
            yield CopyInChunk(id=container, path=b"/tmp")
            yield CopyInChunk(data=buffer.getvalue())

        await client.interaction.CopyIn(chunks())

    async def read(path: bytes) -> bytes:
        archive = b"".join(
            [chunk.data async for chunk in client.interaction.CopyOut(PathRequest(id=container, path=path))]
        )
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return tar.extractfile(tar.getmembers()[0]).read()

    await put("live", b"while running")
    assert await read(b"/tmp/live") == b"while running"
    stat = await client.interaction.StatPath(PathRequest(id=container, path=b"/tmp/live"))
    assert stat.size == 13
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.interaction.StatPath(PathRequest(id=container, path=b"/tmp/no"))
    assert reason(caught.value) == "NO_SUCH_PATH"
    await client.kill(container)
    assert await read(b"/tmp/live") == b"while running"
    await put("dead", b"while stopped")
    assert await read(b"/tmp/dead") == b"while stopped"
    paths = [e.path for e in (await client.containers.Diff(ContainerRef(id=container))).entries]
    assert b"/tmp/live" in paths
    await client.start(container)
    assert await read(b"/tmp/dead") == b"while stopped"


async def test_top_stats_size_and_diagnostics(client: Client, layer: str) -> None:
    container = await client.run(layer, "sleep", "1000")
    top = await client.containers.Top(ContainerRef(id=container))
    assert [b"sleep", b"1000"] in [list(process.argv) for process in top.processes]
    stats = [s async for s in client.containers.WatchStats(ContainerStatsRequest(id=container))]
    assert len(stats) == 1
    assert stats[0].pids >= 1
    size = await client.containers.Size(ContainerRef(id=container))
    assert 0 < size.rw_bytes < size.root_bytes
    diagnostics = await client.containers.Diagnostics(ContainerRef(id=container))
    assert diagnostics.dmesg


async def test_update_while_running(client: Client, layer: str) -> None:
    container = await client.run(layer, "sleep", "1000", resources=Resources(memory=128 << 20))
    await client.containers.Update(UpdateContainerRequest(id=container, resources=Resources(memory=64 << 20)))
    stats = [s async for s in client.containers.WatchStats(ContainerStatsRequest(id=container))]
    assert stats[0].memory_limit == 64 << 20


# ---------------------------------------------------------------- volumes and networks


async def test_a_volume_outlives_its_container_and_excludes_a_second_writer(
    client: Client, layer: str
) -> None:
    await client.volumes.Create(Volume(name="data"))
    mounts = [VolumeMount(volume="data", destination="/data")]
    first = await client.run(
        layer, "sh", "-c", "cat /data/from-image; echo kept > /data/file; sleep 1000", mounts=mounts
    )
    stream = await client.attach(first, from_start=True)
    await stream.until(b"image\n")
    second = await client.create(layer, "cat", "/data/file", mounts=mounts)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.start(second)
    assert reason(caught.value) == "VOLUME_IN_USE"
    await client.stop(first, timeout=0)
    await client.start(second)
    await client.wait(second)
    assert await client.logs(second) == b"kept\n"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.volumes.Remove(VolumeRef(name="data"))
    assert reason(caught.value) == "VOLUME_IN_USE"
    await client.remove(first)
    await client.remove(second)
    await client.volumes.Remove(VolumeRef(name="data"))


async def test_names_ports_and_a_second_network(client: Client, layer: str, host: Host) -> None:
    network = await client.networks.Create(Network(name="backend", type="bridge"))
    server = await client.run(
        layer,
        *("sh", "-c", "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp"),
        name="server",
        ports=[PortBinding(container_port=80, protocol="tcp")],
    )
    port = (await client.get(server)).handle.spec.ports[0].assigned_port
    fetch = ("busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/")
    while (fetched := await asyncio.to_thread(host.run, *fetch, check=False)).returncode:
        await asyncio.sleep(0.2)  # httpd has its own pace
    assert fetched.stdout == "served\n"
    other = await client.run(layer, "sleep", "1000", endpoints=[Endpoint(network=network.id)])
    unreachable = await (await client.exec(other, "wget", "-T", "1", "-q", "-O", "-", "http://server/")).end()
    assert unreachable.code != 0
    handle = await client.containers.Open(ContainerRef(id=server))
    handle.spec.endpoints.add(network=network.id, aliases=["backend-server"])
    await client.containers.Commit(handle)
    reached = await (await client.exec(other, "wget", "-q", "-O", "-", "http://backend-server/")).end()
    assert (reached.out, reached.code) == (b"served\n", 0)
    handle = await client.containers.Open(ContainerRef(id=server))
    del handle.spec.endpoints[1]
    await client.containers.Commit(handle)
    gone = await (
        await client.exec(other, "wget", "-T", "1", "-q", "-O", "-", "http://backend-server/")
    ).end()
    assert gone.code != 0
    await client.remove(server)
    await client.remove(other)
    from portlayer.portlayer_pb2 import NetworkRef

    await client.networks.Remove(NetworkRef(id=network.id))


# ---------------------------------------------------------------- kill -9


async def test_a_killed_port_layer_finds_everything_again(portlayer: PortLayer, layer: str) -> None:
    async with portlayer.client() as client:
        port = PortBinding(container_port=80, protocol="tcp")
        running = await client.run(
            layer,
            "sh",
            "-c",
            "trap 'exit 6' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done",
            name="keeps",
            ports=[port],
        )
        ends = await client.run(layer, "sh", "-c", "read x; exit 8", name="ends", open_stdin=True)
        dies = await client.run(layer, "sleep", "1000", name="dies")
        paused = await client.run(layer, "sleep", "1000", name="paused")
        await client.containers.Pause(ContainerRef(id=paused))
        created = await client.create(layer, "true", name="created")
        before = {name: (await client.get(name)) for name in (running, ends, dies, created)}
        stdin = await client.attach(ends, stdin=True)
    await portlayer.kill()
    os.kill(before[dies].state.pid, 9)
    await portlayer.start()
    async with portlayer.client() as client:
        after = await client.get(running)
        assert after.state.status == ContainerState.RUNNING
        assert after.state.pid == before[running].state.pid
        assert after.state.started_at == before[running].state.started_at
        assert after.handle == before[running].handle
        assert (await client.get(created)).handle == before[created].handle
        dead = (await client.get(dies)).state
        assert (dead.status, dead.exit_code) == (ContainerState.EXITED, 137)
        assert (await client.get(paused)).state.status == ContainerState.PAUSED
        await client.containers.Unpause(ContainerRef(id=paused))
        stdin = await client.attach(ends, stdin=True)
        await stdin.write(b"go\n")
        assert (await stdin.end()).code == 8
        assert (await client.wait(ends)).exit_code == 8
        hello = await (await client.exec(running, "echo", "hello")).end()
        assert hello.out == b"hello\n"
        assert (await client.stop(running)).exit_code == 6
        numbers = [int(line) for line in (await client.logs(running)).split()]
        assert numbers == list(range(len(numbers)))
        for container in (running, ends, dies, paused, created):
            await client.remove(container)


async def test_a_port_layer_that_stops_leaves_vms_running(portlayer: PortLayer, layer: str) -> None:
    async with portlayer.client() as client:
        container = await client.run(layer, "sh", "-c", "sleep 0.1; exit 2")
        assert await portlayer.stop() == 0
        assert not portlayer.config.paths.portlayer_socket.exists()
    await portlayer.start()
    async with portlayer.client() as client:
        assert (await client.wait(container)).exit_code == 2
        await client.remove(container)


async def test_a_second_port_layer_refuses(portlayer: PortLayer) -> None:
    second = portlayer.spawn()
    assert await asyncio.to_thread(second.wait, 30) == 1
    assert "another port layer serves this VCH" in portlayer.log.read_text()
    async with portlayer.client() as client:
        await client.containers.List(ListContainersRequest())


async def test_an_attach_that_is_never_read_costs_nobody(client: Client, layer: str) -> None:
    container = await client.create(layer, "sh", "-c", "yes | head -c 20000000")
    call = client.interaction.Attach()
    await call.write(InputChunk(open=AttachOpen(id=container, stdout=True, stderr=True)))
    await client.start(container)
    assert (await client.wait(container)).exit_code == 0
    call.cancel()
