"""docker inspect: the fields that the CLI, compose and docker-py read."""

from __future__ import annotations

from typing import Any

import pytest

from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api
from tests.engine.fake.services import Interaction
from tests.engine.fake.state import FakeHost, Refusal, abort


async def test_running_container(api: Api, host: FakeHost) -> None:
    container = await api.run(
        ["sleep", "5"],
        "web",
        Env=["A=1"],
        Labels={"a": "b"},
        ExposedPorts={"80/tcp": {}},
        StopSignal="SIGINT",
        HostConfig={
            "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            "Memory": 64 << 20,
            "CapAdd": ["NET_ADMIN"],
        },
    )
    shown = (await api("GET", "/containers/web/json?size=1")).json
    assert (shown["Id"], shown["Name"], shown["Path"], shown["Args"]) == (container, "/web", "sleep", ["5"])
    assert shown["State"]["Pid"] == 4242
    assert "Health" not in shown["State"]
    assert shown["Config"]["Env"] == ["A=1", "PATH=/bin", "FROM=image"]
    assert (shown["Config"]["Hostname"], shown["Config"]["Image"]) == (container[:12], "busybox")
    assert shown["Config"]["Cmd"] == ["sleep", "5"]
    assert shown["Config"]["Entrypoint"] is None
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}
    host_config = shown["HostConfig"]
    assert host_config["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert host_config["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert (host_config["Memory"], host_config["MemorySwap"]) == (64 << 20, 128 << 20)
    assert (host_config["NetworkMode"], host_config["IpcMode"]) == ("bridge", "private")
    assert (host_config["CapAdd"], host_config["CapDrop"], host_config["Binds"]) == (
        ["NET_ADMIN"],
        None,
        None,
    )
    assert host_config["ShmSize"] == 64 << 20
    assert "/proc/kcore" in host_config["MaskedPaths"]
    ports = shown["NetworkSettings"]["Ports"]
    assert ports == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]}
    assert (
        shown["NetworkSettings"]["IPAddress"] == shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    )
    assert shown["NetworkSettings"]["IPAddress"].startswith("172.30.0.")
    assert (shown["SizeRw"], shown["SizeRootFs"]) == (1000, 5000)
    assert shown["LogPath"] == "/journal"


async def test_stopped_container_has_no_address_and_no_ports(api: Api) -> None:
    container = await api.create(HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "80"}]}})
    settings = (await api("GET", f"/containers/{container}/json")).json["NetworkSettings"]
    assert (settings["IPAddress"], settings["Ports"]) == ("", {})
    assert settings["Networks"]["bridge"]["NetworkID"] == "b" * 64


async def test_guest_that_does_not_answer_is_still_inspected(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await api.run()

    async def lost(self: Interaction, request: pb.ContainerRef, context: Any) -> None:
        await abort(context, Refusal(pb.GUEST_LOST, "the guest does not answer"))

    monkeypatch.setattr(Interaction, "Execs", lost)
    reply = await api("GET", f"/containers/{container}/json")
    assert (reply.status, reply.json["ExecIDs"]) == (200, None)


async def test_health(api: Api) -> None:
    container = await api.run(Healthcheck={"Test": ["CMD", "true"]})
    state = (await api("GET", f"/containers/{container}/json")).json["State"]
    assert state["Health"] == {"Status": "starting", "FailingStreak": 0, "Log": []}


async def test_lookup_by_prefix_name_and_slash(api: Api) -> None:
    container = await api.create(name="web")
    for reference in (container, container[:12], container[:3], "web"):
        assert (await api("GET", f"/containers/{reference}/json")).json["Id"] == container
    assert (await api("GET", "/containers/%2Fweb/json")).json["Id"] == container


async def test_ambiguous_prefix(api: Api, host: FakeHost) -> None:
    for number in range(17):  # by the pigeonhole principle two IDs begin alike
        await api.create(name=f"box{number}")
    first = [machine[0] for machine in host.machines]
    prefix = next(digit for digit in first if first.count(digit) > 1)
    reply = await api("GET", f"/containers/{prefix}/json")
    assert (reply.status, reply.message) == (400, f"multiple IDs found with provided prefix: {prefix}")


async def test_differences_between_versions(api: Api, host: FakeHost) -> None:
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    container = await api.run(
        HostConfig={"NetworkMode": "back"},
        NetworkingConfig={"EndpointsConfig": {"back": {"Aliases": ["www"]}}},
    )
    new = (await api("GET", f"/v1.50/containers/{container}/json")).json
    old = (await api("GET", f"/v1.43/containers/{container}/json")).json
    assert new["NetworkSettings"]["Networks"]["back"]["Aliases"] == ["www"]
    assert old["NetworkSettings"]["Networks"]["back"]["Aliases"] == ["www", container[:12]]
    assert container[:12] in new["NetworkSettings"]["Networks"]["back"]["DNSNames"]
    assert "DNSNames" not in old["NetworkSettings"]["Networks"]["back"]
    assert ("MacAddress" in old["Config"], "MacAddress" in new["Config"]) == (True, False)


async def test_renamed_container_is_found_by_its_new_name_only(api: Api) -> None:
    container = await api.create(name="old")
    await api("POST", "/containers/old/rename?name=new")
    assert (await api("GET", "/containers/new/json")).json["Id"] == container
    assert (await api("GET", "/containers/old/json")).status == 404
    other = await api.create(name="old")
    assert (await api("GET", "/containers/old/json")).json["Id"] == other


async def test_rename_errors(api: Api) -> None:
    owner = await api.create(name="taken")
    await api.create(name="box")
    for query, status, words in (
        ("", 400, "Neither old nor new names may be empty"),
        ("name=box", 400, "Renaming a container with the same name as its current name"),
        ("name=-", 400, "Error when allocating new name: Invalid container name (/-)"),
        ("name=taken", 409, f'is already in use by container "{owner}"'),
    ):
        reply = await api("POST", f"/containers/box/rename?{query}")
        assert reply.status == status
        assert words in reply.message
