import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from engine.context import Engine
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost


def filters(**wanted: list[str]) -> str:
    return "filters=" + quote(json.dumps(wanted))


async def create(api: Api, name: str, **body: Any) -> dict[str, Any]:
    reply = await api("POST", "/volumes/create", {"Name": name, **body})
    assert reply.status == 201, reply.body
    return dict(reply.json)


async def names(api: Api, query: str = "") -> list[str]:
    return [volume["Name"] for volume in (await api("GET", f"/volumes?{query}")).json["Volumes"]]


async def test_a_volume_from_create_to_remove(api: Api, host: FakeHost) -> None:
    made = await create(api, "data", Labels={"k": "v"}, DriverOpts={"Capacity": "2G"})
    assert made == {
        "CreatedAt": "0001-01-01T00:00:00Z",
        "Driver": "local",
        "Labels": {"k": "v"},
        "Mountpoint": "/volumes/data",
        "Name": "data",
        "Options": {"Capacity": "2G"},
        "Scope": "local",
    }
    shown = (await api("GET", "/volumes/data")).json
    assert shown.pop("Status") == {"VolumeStore": "", "Capacity": 0, "Used": 0}
    assert shown == made
    assert dict(host.volumes["data"].options) == {"Capacity": "2G"}
    assert (await api("DELETE", "/volumes/data")).status == 204
    assert host.volumes == {}


async def test_a_volume_without_a_name_is_anonymous(api: Api, host: FakeHost) -> None:
    for body in ({}, None):
        reply = await api("POST", "/volumes/create", body)
        assert reply.status == 201
        assert re.fullmatch("[0-9a-f]{64}", reply.json["Name"])
        assert reply.json["Labels"] == {"com.docker.volume.anonymous": ""}
        assert host.volumes[reply.json["Name"]].anonymous


async def test_creating_what_is_there_gives_it_back(api: Api, host: FakeHost) -> None:
    await create(api, "data", Labels={"k": "v"})
    again = await create(api, "data", Labels={"k": "other"})
    assert again["Labels"] == {"k": "v"}
    reply = await api("POST", "/volumes/create", {"Name": "data", "Driver": "vsphere"})
    assert (reply.status, "volume name must be unique" in reply.message) == (409, True)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Name": "x"}, 400, "create x: volume name is too short"),
        ({"Name": "a/b"}, 400, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ({"Name": "-ab"}, 400, "includes invalid characters"),
        ({"Name": "a" * 256}, 400, "includes invalid characters"),
        (
            {"Name": "ab", "Driver": "nfs"},
            404,
            'create ab: error looking up volume plugin nfs: plugin "nfs" not found',
        ),
        ({"ClusterVolumeSpec": {"Group": "x"}}, 501, "cluster volumes (ClusterVolumeSpec) are not supported"),
        ({"Name": 7}, 400, "Name"),
        ({"Nosuch": "x"}, 400, "Nosuch"),
    ],
)
async def test_what_cannot_be_created_is_refused(
    api: Api, host: FakeHost, body: dict[str, Any], status: int, words: str
) -> None:
    reply = await api("POST", "/volumes/create", body)
    assert reply.status == status
    assert words in reply.message
    assert host.volumes == {}


async def test_what_is_not_there(api: Api) -> None:
    for method in ("GET", "DELETE"):
        reply = await api(method, "/volumes/nosuch")
        assert (reply.status, reply.message) == (404, "get nosuch: no such volume")
    assert (await api("DELETE", "/volumes/nosuch?force=1")).status == 204
    assert (await api("PUT", "/volumes/nosuch")).status == 501


async def use(api: Api, volume: str, name: str = "user") -> str:
    return await api.create(name=name, HostConfig={"Binds": [f"{volume}:/data"]})


async def test_a_volume_in_use_is_not_removed(api: Api, host: FakeHost) -> None:
    await create(api, "data")
    container = await use(api, "data")
    reply = await api("DELETE", "/volumes/data?force=1")
    assert (reply.status, reply.message) == (409, f"remove data: volume is in use - [{container}]")


async def test_the_filters_of_the_list(api: Api) -> None:
    await create(api, "alpha", Labels={"k": "v"})
    await create(api, "beta", Labels={"k": "w", "x": ""}, Driver="vsphere")
    await create(api, "gamma")
    await use(api, "gamma")
    for query, expected in (
        ("", ["alpha", "beta", "gamma"]),
        (filters(dangling=["true"]), ["alpha", "beta"]),
        (filters(dangling=["false"]), ["gamma"]),
        (filters(name=["a"]), ["alpha", "beta", "gamma"]),
        (filters(name=["alph", "mma"]), ["alpha", "gamma"]),
        (filters(name=["^b"]), ["beta"]),
        (filters(driver=["local"]), ["alpha", "gamma"]),
        (filters(label=["k"]), ["alpha", "beta"]),
        (filters(label=["k=w", "x"]), ["beta"]),
        (filters(label=["nosuch"]), []),
    ):
        assert await names(api, query) == expected, query
    reply = await api("GET", "/volumes?" + filters(nosuch=["x"]))
    assert (reply.status, reply.message) == (400, "invalid filter 'nosuch'")


async def test_pruning_takes_anonymous_ones_and_named_ones_only_when_asked(
    api: Api, host: FakeHost, engine: Engine
) -> None:
    await create(api, "named", Labels={"k": "v"})
    await create(api, "kept")
    await use(api, "kept")
    anonymous = (await api("POST", "/volumes/create", {})).json["Name"]
    host.volumes[anonymous].used_bytes = 1000
    assert (await api("POST", "/volumes/prune?" + filters(label=["nosuch"]))).json["VolumesDeleted"] is None
    reply = await api("POST", "/volumes/prune")
    assert reply.json == {"VolumesDeleted": [anonymous], "SpaceReclaimed": 1000}
    excluded = filters(**{"all": ["1"], "label!": ["k=v"]})
    assert (await api("POST", f"/volumes/prune?{excluded}")).json["VolumesDeleted"] is None
    assert (await api("POST", "/volumes/prune?" + filters(all=["1"]))).json["VolumesDeleted"] == ["named"]
    assert await names(api) == ["kept"]
    # "destroy" comes from the port layer and may overtake: only the prunes are in order
    last = [event for event in engine.events.past() if event.action == "prune"][-1]
    assert (last.kind, last.attributes) == ("volume", {"reclaimed": "0"})


async def test_old_clients_prune_named_volumes_too(api: Api) -> None:
    await create(api, "named")
    assert (await api("POST", "/v1.41/volumes/prune")).json["VolumesDeleted"] == ["named"]
