"""exec create, start, inspect, resize over the API."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from engine.context import Engine
from engine.execs.store import KEEP_NS, ExecStore
from tests.engine.conftest import LIMIT, Api, Images, running_engine
from tests.engine.fake.state import FakeHost
from vch.config import VchConfig

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "tcp")]


async def make(api: Api, container: str, argv: list[str], **options: Any) -> str:
    body = {"Cmd": argv, "AttachStdout": True, "AttachStderr": True, **options}
    reply = await api("POST", f"/containers/{container}/exec", body)
    assert reply.status == 201, reply.body
    return str(reply.json["Id"])


async def test_exec_runs_and_its_exit_code_is_kept(api: Api) -> None:
    container = await api.run()
    exec_id = await make(api, container, ["exit", "9"])
    before = (await api("GET", f"/exec/{exec_id}/json")).json
    assert (before["Running"], before["ExitCode"], before["ContainerID"]) == (False, None, container)
    assert before["ProcessConfig"]["entrypoint"] == "exit"
    reader, _ = await api.open("POST", f"/exec/{exec_id}/start", {"Detach": False}, headers=UPGRADE)
    assert (await api.head(reader))[0] == 101
    assert await asyncio.wait_for(reader.read(), LIMIT) == b""
    after = (await api("GET", f"/exec/{exec_id}/json")).json
    assert (after["Running"], after["ExitCode"]) == (False, 9)
    again = await api("POST", f"/exec/{exec_id}/start", {"Detach": False})
    assert (again.status, again.message) == (409, f"exec command {exec_id} has already run")


async def test_detached_exec_goes_on_by_itself(api: Api, host: FakeHost) -> None:
    container = await api.run()
    exec_id = await make(api, container, ["sleep"])
    assert (await api("POST", f"/exec/{exec_id}/start", {"Detach": True})).status == 200
    assert (await api("GET", f"/exec/{exec_id}/json")).json["Running"] is True
    assert (await api("GET", f"/containers/{container}/json")).json["ExecIDs"] == [exec_id]
    assert (await api("POST", f"/exec/{exec_id}/resize?h=40&w=132")).status == 200
    assert host.machines[container].execs[exec_id].size == (40, 132)


async def test_environment_user_and_privileges(api: Api, host: FakeHost) -> None:
    container = await api.run(Env=["A=1", "B=2"], User="7", HostConfig={"CapDrop": ["ALL"]})
    exec_id = await make(
        api, container, ["sleep"], Env=["B=3", "A"], User="8", WorkingDir="/tmp", Privileged=True, Tty=True
    )
    await api("POST", f"/exec/{exec_id}/start", {"Detach": True})
    process = host.machines[container].execs[exec_id].spec
    assert {"B=3", "FROM=image", "TERM=xterm"} <= set(process.env)
    assert not any(item.startswith("A=") for item in process.env)
    assert (process.user, process.cwd, process.privileged) == ("8", "/tmp", True)
    assert "CAP_SYS_ADMIN" in process.capabilities


async def test_command_that_cannot_run_is_told_in_the_stream(api: Api) -> None:
    container = await api.run()
    exec_id = await make(api, container, ["missing"])
    reader, _ = await api.open("POST", f"/exec/{exec_id}/start", {}, headers=UPGRADE)
    assert (await api.head(reader))[0] == 101
    output = await asyncio.wait_for(reader.read(), LIMIT)
    assert output[0] == 1
    assert b"executable file not found in $PATH" in output
    assert (await api("GET", f"/exec/{exec_id}/json")).json["ExitCode"] == 127


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Cmd": []}, 400, "No exec command specified"),
        ({"Cmd": ["x"], "DetachKeys": "ctrl-ä"}, 400, "Invalid detach keys (ctrl-ä) provided"),
        ({"Cmd": ["x"], "Env": ["=x"]}, 400, "invalid environment variable: =x"),
        (
            {"Cmd": ["x"], "ConsoleSize": [1]},
            400,
            "invalid ConsoleSize: height and width of the console are wanted",
        ),
    ],
)
async def test_bad_requests(api: Api, body: dict[str, Any], status: int, message: str) -> None:
    container = await api.run()
    reply = await api("POST", f"/containers/{container}/exec", body)
    assert (reply.status, reply.message) == (status, message)


async def test_exec_needs_a_running_container(api: Api) -> None:
    container = await api.create()
    reply = await api("POST", f"/containers/{container}/exec", {"Cmd": ["x"]})
    assert (reply.status, reply.message) == (409, f"container {container} is not running")
    reply = await api("GET", "/exec/nothing/json")
    assert (reply.status, reply.message) == (404, "No such exec instance: nothing")


async def test_exec_made_before_an_engine_died_is_started_by_the_next(
    host: FakeHost, config: VchConfig, images: Images
) -> None:
    client = Api(config.paths.docker_socket)
    async with running_engine(config, images):
        container = await client.run()
        exec_id = await make(client, container, ["exit", "4"])
    async with running_engine(config, images):
        reader, _ = await client.open("POST", f"/exec/{exec_id}/start", {}, headers=UPGRADE)
        await client.head(reader)
        await asyncio.wait_for(reader.read(), LIMIT)
        assert (await client("GET", f"/exec/{exec_id}/json")).json["ExitCode"] == 4
        await client.close()


async def test_sweep_keeps_what_may_still_be_asked_for(api: Api, host: FakeHost, engine: Engine) -> None:
    container = await api.run()
    fresh = await make(api, container, ["true"])
    old_waiting, old_running, old_done = [
        await make(api, container, [word]) for word in ("true", "sleep", "true")
    ]
    for exec_id in (old_running, old_done):
        await api("POST", f"/exec/{exec_id}/start", {"Detach": True})
    long_ago = time.time_ns() - 2 * KEEP_NS
    for exec_id in (old_waiting, old_running, old_done):
        stored = host.keys[f"exec/{exec_id}"]
        stored.value = json.dumps({**json.loads(stored.value), "created_at": long_ago}).encode()
    host.machines[container].execs[old_done].finished_at = long_ago
    await ExecStore(engine.port).sweep({container: True})
    assert set(host.keys) == {f"exec/{exec_id}" for exec_id in (fresh, old_waiting, old_running)}
    await ExecStore(engine.port).sweep({})
    assert set(host.keys) == {f"exec/{fresh}"}
