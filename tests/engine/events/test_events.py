"""docker events: translation, shapes by version, filters, the ring, slow listeners."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.context import Engine
from engine.events.hub import QUEUE, RING, Event, EventHub
from engine.events.pump import publish
from engine.events.shape import ALLOWED, encode, wanted
from engine.filters import Filters
from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import LIMIT, Api
from tether import tether_pb2

EVENT = Event(
    kind="container",
    action="exec_create: ls ",
    actor="c" * 64,
    attributes={"name": "web", "image": "busybox:1", "tier": "front"},
    time_ns=5_000_000_007,
)
IMAGE = Event(kind="image", action="pull", actor="busybox:1", attributes={"name": "busybox"}, time_ns=1)
NETWORK = Event(kind="network", action="connect", actor="d" * 64, attributes={"name": "back"}, time_ns=1)


def test_shape_of_today() -> None:
    assert encode(EVENT, (1, 50)) == {
        "status": "exec_create: ls ",
        "id": "c" * 64,
        "from": "busybox:1",
        "Type": "container",
        "Action": "exec_create: ls ",
        "Actor": {"ID": "c" * 64, "Attributes": {"name": "web", "image": "busybox:1", "tier": "front"}},
        "scope": "local",
        "time": 5,
        "timeNano": 5_000_000_007,
    }


def test_shapes_of_the_past() -> None:
    assert set(encode(EVENT, (1, 21))) == {"status", "id", "from", "time", "timeNano"}
    assert "scope" not in encode(EVENT, (1, 29))
    assert set(encode(NETWORK, (1, 50))) == {"Type", "Action", "Actor", "scope", "time", "timeNano"}


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({}, [EVENT, IMAGE, NETWORK]),
        ({"type": ["container", "image"]}, [EVENT, IMAGE]),
        ({"event": ["exec_create"]}, [EVENT]),
        ({"event": ["pull", "connect"]}, [IMAGE, NETWORK]),
        ({"container": ["web"]}, [EVENT]),
        ({"container": ["cccc"]}, [EVENT]),
        ({"container": ["other"]}, []),
        ({"image": ["busybox"]}, [EVENT, IMAGE]),
        ({"image": ["busybox:1"]}, [EVENT, IMAGE]),
        ({"image": ["busybox:2"]}, []),
        ({"label": ["tier=front"]}, [EVENT]),
        ({"network": ["back"]}, [NETWORK]),
        ({"scope": ["local"]}, [EVENT, IMAGE, NETWORK]),
        ({"scope": ["swarm"]}, []),
        ({"service": ["x"]}, []),
    ],
)
def test_filters(filters: dict[str, Any], matches: list[Event]) -> None:
    parsed = Filters.parse(json.dumps(filters), ALLOWED)
    assert [event for event in (EVENT, IMAGE, NETWORK) if wanted(event, parsed)] == matches


def test_ring_keeps_the_last_ones() -> None:
    hub = EventHub()
    for number in range(RING + 10):
        hub.publish("container", "create", str(number))
    assert [event.actor for event in hub.past()] == [str(n) for n in range(10, RING + 10)]


async def test_listener_that_does_not_listen_is_cut_off() -> None:
    hub = EventHub()
    with hub.subscribe() as lazy, hub.subscribe() as eager:
        for number in range(QUEUE + 1):
            hub.publish("container", "create", str(number))
            assert (await eager.next()) is not None
        assert len(hub.subscriptions) == 1
        for _ in range(QUEUE):
            assert await lazy.next() is not None
        assert await lazy.next() is None
    assert not hub.subscriptions


async def collect(api: Api, query: str, count: int) -> list[dict[str, Any]]:
    reader, writer = await api.open("GET", f"/events?{query}")
    assert (await api.head(reader))[0] == 200
    found: list[dict[str, Any]] = []
    chunks = api.chunks(reader)
    async with contextlib.aclosing(chunks):  # type: ignore[type-var]
        while len(found) < count:
            found.append(json.loads(await asyncio.wait_for(anext(chunks), LIMIT)))
    writer.close()
    return found


async def test_life_of_a_container(api: Api) -> None:
    since = time.time_ns()
    container = await api.run(["exit", "3"], "web", Labels={"a": "b"})
    await api("POST", f"/containers/{container}/wait")
    await api("DELETE", f"/containers/{container}")
    found = await collect(api, f"since={since / 1e9:.9f}", 4)
    assert [event["Action"] for event in found] == ["create", "start", "die", "destroy"]
    assert found[0]["Actor"]["Attributes"] == {"a": "b", "image": "busybox", "name": "web"}
    assert found[2]["Actor"]["Attributes"]["exitCode"] == "3"
    assert found[2]["Actor"]["Attributes"]["execDuration"] == "0"


async def test_live_events_and_until(api: Api, engine: Engine) -> None:
    live = asyncio.create_task(collect(api, "filters=" + quote('{"event":["create"]}'), 1))
    while not engine.events.subscriptions:
        await asyncio.sleep(0)
    container = await api.create()
    assert (await live)[0]["id"] == container
    reply = await api("GET", f"/events?since=0&until={time.time() + 0.05:.3f}")
    assert [json.loads(line)["Action"] for line in reply.body.splitlines()] == ["create"]
    reply = await api("GET", "/events?since=10&until=5")
    assert (reply.status, reply.message) == (400, "`since` time cannot be after `until` time")


async def test_actions_of_ours_are_events_too(api: Api, engine: Engine) -> None:
    await api.run(name="box")
    await api("POST", "/containers/box/rename?name=crate")
    await api("POST", "/containers/crate/update", {"CpuShares": 5})
    await api("POST", "/containers/crate/restart")
    await api("GET", "/containers/crate/top")
    actions = [(event.action, event.attributes.get("oldName", "")) for event in engine.events.past()]
    for expected in (("rename", "/box"), ("update", ""), ("restart", ""), ("top", "")):
        assert expected in actions


@pytest.mark.parametrize(
    ("event", "kind", "action", "attributes"),
    [
        (
            {
                "network": pb.NetworkChange(
                    kind=pb.NetworkChange.CONNECTED,
                    network=pb.Network(id="n", name="back", type="bridge"),
                    container="c",
                )
            },
            "network",
            "connect",
            {"name": "back", "type": "bridge", "container": "c"},
        ),
        (
            {
                "volume": pb.VolumeChange(
                    kind=pb.VolumeChange.MOUNTED,
                    volume=pb.Volume(name="data"),
                    container="c",
                    destination="/d",
                    read_only=True,
                )
            },
            "volume",
            "mount",
            {
                "driver": "local",
                "container": "c",
                "destination": "/d",
                "propagation": "",
                "read/write": "false",
            },
        ),
        (
            {
                "container": pb.ContainerEvent(
                    kind=pb.ContainerEvent.HEALTH,
                    id="c",
                    handle=pb.Handle(id="c", spec=pb.ContainerSpec(name="web")),
                    state=pb.ContainerState(health=tether_pb2.HealthEvent.UNHEALTHY),
                )
            },
            "container",
            "health_status: unhealthy",
            {"image": "", "name": "web"},
        ),
        (
            {
                "container": pb.ContainerEvent(
                    kind=pb.ContainerEvent.KILLED,
                    id="c",
                    signal=9,
                    handle=pb.Handle(id="c", spec=pb.ContainerSpec(name="web")),
                )
            },
            "container",
            "kill",
            {"image": "", "name": "web", "signal": "9"},
        ),
    ],
)
async def test_port_layers_events_translated(
    engine: Engine, event: dict[str, Any], kind: str, action: str, attributes: dict[str, str]
) -> None:
    publish(engine, pb.PortlayerEvent(time=7, **event))
    made = engine.events.past()[-1]
    assert (made.kind, made.action, made.attributes, made.time_ns) == (kind, action, attributes, 7)


@given(st.dictionaries(st.sampled_from(sorted(ALLOWED)), st.lists(st.text(max_size=10), max_size=3)))
def test_no_filter_is_our_fault(filters: dict[str, list[str]]) -> None:
    parsed = Filters.parse(json.dumps(filters), ALLOWED)
    for event in (EVENT, IMAGE, NETWORK):
        assert wanted(event, parsed) in (True, False)
