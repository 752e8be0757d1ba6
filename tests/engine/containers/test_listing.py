"""docker ps: filters, limits, sizes, and a thousand containers in time."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost


async def names(api: Api, query: str = "", **filters: Any) -> list[str]:
    if filters:
        query += f"&filters={quote(json.dumps(filters))}"
    reply = await api("GET", f"/containers/json?{query}")
    assert reply.status == 200, reply.body
    return [entry["Names"][0] for entry in reply.json]


@pytest.fixture
async def fleet(api: Api, host: FakeHost) -> dict[str, str]:
    """one: exited 3; two: running, labelled, with ports and a volume; three: created; four: paused."""
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    one = await api.run(["exit", "3"], "one", Labels={"tier": "front"})
    await api("POST", f"/containers/{one}/wait")
    two = await api.run(
        ["sleep"],
        "two",
        Labels={"tier": "back", "x": ""},
        ExposedPorts={"443/tcp": {}},
        Healthcheck={"Test": ["CMD", "true"]},
        HostConfig={
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
            "Binds": ["data:/data"],
            "NetworkMode": "back",
        },
    )
    three = await api.create(["sleep"], "three")
    four = await api.run(["sleep"], "four")
    await api("POST", f"/containers/{four}/pause")
    return {"one": one, "two": two, "three": three, "four": four}


async def test_without_filters(api: Api, fleet: dict[str, str]) -> None:
    assert await names(api) == ["/four", "/two"]
    assert await names(api, "all=1") == ["/four", "/three", "/two", "/one"]
    assert await names(api, "limit=3") == ["/four", "/three", "/two"]
    assert await names(api, "limit=-1") == ["/four", "/two"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"status": ["exited"]}, ["/one"]),
        ({"status": ["created", "paused"]}, ["/four", "/three"]),
        ({"exited": ["3"]}, ["/one"]),
        ({"exited": ["0"]}, []),
        ({"name": ["^t"]}, ["/three", "/two"]),
        ({"name": ["/two"]}, ["/two"]),
        ({"label": ["tier"]}, ["/two", "/one"]),
        ({"label": ["tier=back", "x"]}, ["/two"]),
        ({"before": ["two"]}, ["/one"]),
        ({"since": ["two"]}, ["/four", "/three"]),
        ({"ancestor": ["busybox"]}, ["/four", "/three", "/two", "/one"]),
        ({"ancestor": ["other"]}, []),
        ({"volume": ["data"]}, ["/two"]),
        ({"volume": ["/data"]}, ["/two"]),
        ({"network": ["back"]}, ["/two"]),
        ({"network": ["d" * 64]}, ["/two"]),
        ({"publish": ["8080"]}, ["/two"]),
        ({"publish": ["8000-9000/tcp"]}, ["/two"]),
        ({"publish": ["8080/udp"]}, []),
        ({"publish": ["80"]}, []),  # the container's own port is no published one
        ({"expose": ["443"]}, ["/two"]),
        ({"health": ["starting"]}, ["/two"]),
        ({"health": ["none"], "status": ["running"]}, []),
        ({"is-task": ["true"]}, []),
        ({"isolation": ["default"]}, ["/four", "/three", "/two", "/one"]),
    ],
)
async def test_filters(api: Api, fleet: dict[str, str], filters: Any, expected: list[str]) -> None:
    assert await names(api, "all=1", **filters) == expected


async def test_id_filter(api: Api, fleet: dict[str, str]) -> None:
    assert await names(api, "all=1", id=[fleet["one"][:12]]) == ["/one"]


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ({"colour": ["red"]}, 400, "invalid filter 'colour'"),
        ({"status": ["asleep"]}, 400, "invalid filter 'status=asleep'"),
        ({"exited": ["x"]}, 400, "invalid filter 'exited=x'"),
        ({"health": ["ill"]}, 400, "invalid filter 'health=ill'"),
        ({"publish": ["a:b"]}, 400, "filter for 'publish' should not contain ':': a:b"),
        ({"before": ["nobody"]}, 404, "No such container: nobody"),
        ({"is-task": ["maybe"]}, 400, "invalid filter 'is-task=[maybe]'"),
    ],
)
async def test_refused_filters(api: Api, filters: Any, status: int, message: str) -> None:
    reply = await api("GET", f"/containers/json?filters={quote(json.dumps(filters))}")
    assert reply.status == status
    assert reply.message.startswith(message)


async def test_entry(api: Api, fleet: dict[str, str]) -> None:
    reply = await api("GET", "/containers/json?size=1&filters=" + quote('{"name":["two"]}'))
    entry = reply.json[0]
    assert entry["Id"] == fleet["two"]
    assert (entry["Image"], entry["ImageID"]) == ("busybox", f"sha256:{'a' * 64}")
    assert entry["Command"] == "sleep"
    assert (entry["State"], entry["SizeRw"], entry["SizeRootFs"]) == ("running", 1000, 5000)
    assert entry["Status"].endswith("(health: starting)")
    assert entry["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert entry["NetworkSettings"]["Networks"]["back"]["NetworkID"] == "d" * 64
    assert entry["HostConfig"] == {"NetworkMode": "back"}
    assert entry["Mounts"][0]["Name"] == "data"


async def test_a_thousand_containers_in_time(api: Api, host: FakeHost) -> None:
    """The budget is 100 ms in the engine; the clock here counts the fake and the client as well."""
    model = await api.run(
        ["sleep", "1000"],
        Labels={"com.docker.compose.project": "x", "a": "b"},
        HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
    )
    template = host.machines[model]
    for number in range(999):
        handle = pb.Handle()
        handle.CopyFrom(template.handle)
        handle.id, handle.spec.name, handle.change_version = f"{number:064x}", f"box{number}", 0
        host.commit(handle).state.CopyFrom(template.state)
    best = 10.0
    for _ in range(5):
        started = time.process_time()
        reply = await api("GET", "/containers/json")
        best = min(best, time.process_time() - started)
        assert len(reply.json) == 1000
    print(f"docker ps of 1000: {best * 1000:.0f} ms of CPU, fake and client included")
    assert best < 0.25
