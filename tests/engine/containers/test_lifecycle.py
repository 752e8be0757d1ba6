"""start, stop, kill, pause, restart, wait and rm over the API."""

from __future__ import annotations

import asyncio

from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost


async def test_created_container_starts_runs_and_stops(api: Api, host: FakeHost) -> None:
    container = await api.create(["sleep"], "web")
    shown = (await api("GET", f"/containers/{container}/json")).json
    assert (shown["State"]["Status"], shown["State"]["StartedAt"]) == ("created", "0001-01-01T00:00:00Z")
    assert (await api("POST", "/containers/web/start")).status == 204
    assert (await api("POST", "/containers/web/start")).status == 304
    assert (await api("GET", "/containers/web/json")).json["State"]["Running"] is True
    assert (await api("POST", "/containers/web/stop")).status == 204
    assert (await api("POST", "/containers/web/stop")).status == 304
    shown = (await api("GET", "/containers/web/json")).json
    assert (shown["State"]["Status"], shown["State"]["ExitCode"]) == ("exited", 143)
    assert (await api("DELETE", "/containers/web")).status == 204
    assert (await api("GET", "/containers/web/json")).message == "No such container: web"
    assert host.machines == {}


async def test_pause_and_unpause(api: Api) -> None:
    container = await api.create(name="box")
    reply = await api("POST", "/containers/box/pause")
    assert (reply.status, reply.message) == (409, f"container {container} is not running")
    await api("POST", "/containers/box/start")
    reply = await api("POST", "/containers/box/unpause")
    assert (reply.status, reply.message) == (500, f"Container {container} is not paused")
    assert (await api("POST", "/containers/box/pause")).status == 204
    reply = await api("POST", "/containers/box/pause")
    assert (reply.status, reply.message) == (409, f"Container {container} is already paused")
    reply = await api("POST", "/containers/box/start")
    assert (reply.status, reply.message) == (409, "cannot start a paused container, try unpause instead")
    reply = await api("POST", "/containers/box/exec", {"Cmd": ["x"]})
    assert reply.message == f"Container {container} is paused, unpause the container before exec"
    assert (await api("POST", "/containers/box/unpause")).status == 204


async def test_kill(api: Api, host: FakeHost) -> None:
    container = await api.create(name="box")
    reply = await api("POST", "/containers/box/kill")
    assert (reply.status, reply.message) == (
        409,
        f"cannot kill container: box: container {container} is not running",
    )
    await api("POST", "/containers/box/start")
    assert (await api("POST", "/containers/box/kill?signal=SIGUSR1")).status == 204
    reply = await api("POST", "/containers/box/kill?signal=NOPE")
    assert (reply.status, reply.message) == (400, "invalid signal: NOPE")
    assert (await api("POST", "/containers/box/kill")).status == 204
    process = host.machines[container].process
    assert process is not None
    assert process.signals == [10, 9]


async def test_stop_has_a_signal_since_1_42(api: Api, host: FakeHost) -> None:
    for version, expected in (("v1.50", 2), ("v1.41", 15)):
        container = await api.run()
        assert (await api("POST", f"/{version}/containers/{container}/stop?signal=INT&t=3")).status == 204
        process = host.machines[container].process
        assert process is not None
        assert process.signals == [expected]


async def test_start_refuses_bodies(api: Api) -> None:
    container = await api.create()
    reply = await api("POST", f"/containers/{container}/start", {"Memory": 1})
    assert (reply.status, "was deprecated since API v1.22" in reply.message) == (400, True)


async def test_command_that_cannot_run_is_the_clients_mistake(api: Api, host: FakeHost) -> None:
    container = await api.create(["missing"])
    reply = await api("POST", f"/containers/{container}/start")
    assert (reply.status, "executable file not found in $PATH" in reply.message) == (400, True)
    doomed = await api.create(["missing"], HostConfig={"AutoRemove": True})
    await api("POST", f"/containers/{doomed}/start")
    assert set(host.machines) == {container}


async def test_remove(api: Api) -> None:
    await api.run(name="box")
    reply = await api("DELETE", "/containers/box")
    assert (reply.status, reply.message) == (
        409,
        'cannot remove container "box": container is running: '
        "stop the container before removing or force remove",
    )
    await api("POST", "/containers/box/pause")
    reply = await api("DELETE", "/containers/box")
    assert reply.message == 'cannot remove container "box": container is paused and must be unpaused first'
    assert (await api("DELETE", "/containers/box?force=1")).status == 204
    assert (await api("DELETE", "/containers/box?force=1")).status == 404


async def test_wait_is_armed_before_its_head_is_sent(api: Api) -> None:
    container = await api.create(["exit", "5"])
    reader, _ = await api.open("POST", f"/containers/{container}/wait?condition=next-exit")
    status, headers = await api.head(reader)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    await api("POST", f"/containers/{container}/start")
    assert b"".join([chunk async for chunk in api.chunks(reader)]) == b'{"StatusCode": 5}\n'


async def test_wait_for_removal_and_old_clients(api: Api) -> None:
    container = await api.create(["exit", "6"], HostConfig={"AutoRemove": True})
    reader, _ = await api.open("POST", f"/containers/{container}/wait?condition=removed")
    await api.head(reader)
    await api("POST", f"/containers/{container}/start")
    assert b"".join([chunk async for chunk in api.chunks(reader)]) == b'{"StatusCode": 6}\n'
    other = await api.run(["exit", "7"])
    assert (await api("POST", f"/v1.29/containers/{other}/wait")).json == {"StatusCode": 7}
    reply = await api("POST", f"/containers/{other}/wait?condition=bored")
    assert (reply.status, reply.message) == (400, 'invalid condition: "bored"')


async def test_waiter_that_leaves_is_forgotten(api: Api) -> None:
    container = await api.run()
    _, writer = await api.open("POST", f"/v1.29/containers/{container}/wait")
    writer.close()
    await writer.wait_closed()
    assert (await api("POST", f"/containers/{container}/stop")).status == 204


async def test_update(api: Api, host: FakeHost) -> None:
    container = await api.create(HostConfig={"Memory": 64 << 20, "CpuShares": 5})
    reply = await api(
        "POST",
        f"/containers/{container}/update",
        {"Memory": 32 << 20, "MemorySwap": 64 << 20, "RestartPolicy": {"Name": "always"}},
    )
    assert (reply.status, reply.json) == (200, {"Warnings": []})
    spec = host.machines[container].handle.spec
    assert (spec.resources.memory, spec.resources.cpu_shares) == (32 << 20, 5)
    shown = (await api("GET", f"/containers/{container}/json")).json["HostConfig"]
    assert (shown["Memory"], shown["RestartPolicy"]["Name"]) == (32 << 20, "always")
    reply = await api("POST", f"/containers/{container}/update", {"Memory": 512 << 20})
    assert (reply.status, "already set memoryswap limit" in reply.message) == (409, True)
    await api("POST", f"/containers/{container}/update", {"PidsLimit": -1})
    assert host.machines[container].handle.spec.resources.pids_limit == -1
    await api("POST", f"/containers/{container}/update", {"NanoCpus": 10**9})
    reply = await api("POST", f"/containers/{container}/update", {"CpuQuota": 5000})
    assert reply.message == (
        f"Cannot update container {container}: Conflicting options: "
        "CPU Quota cannot be updated as NanoCPUs has already been set"
    )
    reply = await api("POST", f"/containers/{container}/update", {"Devices": [{"PathOnHost": "/dev/x"}]})
    assert (reply.status, "--device" in reply.message) == (501, True)


async def test_resize(api: Api, host: FakeHost) -> None:
    container = await api.run(Tty=True)
    assert (await api("POST", f"/containers/{container}/resize?h=50&w=100")).status == 200
    process = host.machines[container].process
    assert process is not None
    assert process.size == (50, 100)
    for query in ("h=50", "h=x&w=1", "h=-1&w=1", "h=99999999999&w=1"):
        assert (await api("POST", f"/containers/{container}/resize?{query}")).status == 400


async def test_prune(api: Api, host: FakeHost) -> None:
    running = await api.run()
    kept = await api.create(Labels={"keep": ""})
    done = await api.run(["true"])
    await api("POST", f"/containers/{done}/wait")
    reply = await api("POST", "/containers/prune?filters=%7B%22label%21%22%3A%5B%22keep%22%5D%7D")
    assert reply.json == {"ContainersDeleted": [done], "SpaceReclaimed": 1000}
    assert set(host.machines) == {running, kept}
    reply = await api("POST", "/containers/prune?filters=%7B%22until%22%3A%5B%221h%22%5D%7D")
    assert reply.json == {"ContainersDeleted": None, "SpaceReclaimed": 0}


async def test_concurrent_starts_of_one_container(api: Api) -> None:
    container = await api.create()
    replies = await asyncio.gather(*(api("POST", f"/containers/{container}/start") for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [204] + [304] * 7


async def test_container_on_its_way_up_can_be_stopped(api: Api, host: FakeHost) -> None:
    """Starting takes a VM's boot: a stop in that time must not be taken for done."""
    container = await api.create()
    assert (await api("POST", f"/containers/{container}/stop")).status == 304
    host.machines[container].state.status = pb.ContainerState.STARTING
    assert (await api("POST", f"/containers/{container}/stop")).status == 204
