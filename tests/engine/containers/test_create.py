"""POST /containers/create over the API: what is made, what is refused, and that nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.conftest import Api, Images
from tests.engine.fake.state import FakeHost


async def test_name_is_made_up_and_free(api: Api, host: FakeHost) -> None:
    for _ in range(5):
        await api.create()
    names = {machine.handle.spec.name for machine in host.machines.values()}
    assert len(names) == 5
    assert all("_" in name for name in names)


async def test_name_conflict_names_the_owner(api: Api, host: FakeHost) -> None:
    owner = await api.create(name="web")
    reply = await api("POST", "/containers/create?name=web", {"Image": "busybox"})
    assert reply.status == 409
    assert reply.message == (
        f'Conflict. The container name "/web" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    assert len(host.machines) == 1


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        ("", None, 400, "config cannot be empty in order to create a container"),
        ("", {}, 400, "config cannot be empty in order to create a container"),
        ("", {"Image": "nothing"}, 404, "No such image: nothing"),
        ("", {"Cmd": ["x"]}, 400, "invalid reference format"),
        (
            "name=-x",
            {"Image": "busybox"},
            400,
            "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        (
            "name=x",
            {"Image": "busybox"},
            400,
            "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        ("", {"Image": "busybox", "Cmd": [], "Entrypoint": [""]}, 400, "no command specified"),
        (
            "",
            {"Image": "busybox", "HostConfig": {"NetworkMode": "nowhere"}},
            400,
            "network nowhere not found",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"NetworkMode": "host"}},
            501,
            "--network host is not supported: every container is its own virtual machine",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"VolumesFrom": ["nobody"]}},
            400,
            "No such container: nobody",
        ),
        (
            "",
            {"Image": "busybox", "HostConfig": {"Links": ["nobody:x"]}},
            400,
            "could not get container for nobody: No such container: nobody",
        ),
        (
            "platform=linux/arm64",
            {"Image": "busybox"},
            404,
            "image with reference busybox was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)",
        ),
        ("platform=linux/amd64", {"Image": "busybox"}, 201, ""),
    ],
)
async def test_answers(api: Api, query: str, body: Any, status: int, message: str) -> None:
    reply = await api("POST", f"/containers/create?{query}", body)
    assert reply.status == status, reply.body
    if message:
        assert reply.message == message


async def test_not_json(api: Api) -> None:
    reply = await api("POST", "/containers/create", raw=b"{}", headers=[("Content-Type", "text/plain")])
    assert (reply.status, reply.message) == (
        400,
        "unsupported Content-Type header (text/plain): must be 'application/json'",
    )
    reply = await api(
        "POST", "/containers/create", raw=b'{"Image"', headers=[("Content-Type", "application/json")]
    )
    assert reply.status == 400
    assert reply.message.startswith("invalid JSON: ")


async def test_volumes_of_the_image_become_anonymous_ones_and_go_with_v(
    api: Api, host: FakeHost, images: Images
) -> None:
    images.add("db:1", "b" * 64, {"Cmd": ["serve"], "Volumes": {"/data": {}, "/named": {}}})
    reply = await api(
        "POST", "/containers/create", {"Image": "db:1", "HostConfig": {"Binds": ["kept:/named"]}}
    )
    container = reply.json["Id"]
    assert sorted(volume.anonymous for volume in host.volumes.values()) == [False, True]
    mounts = (await api("GET", f"/containers/{container}/json")).json["Mounts"]
    assert {mount["Destination"]: mount["Name"] == "kept" for mount in mounts} == {
        "/named": True,
        "/data": False,
    }
    other = await api.create(HostConfig={"VolumesFrom": [f"{container}:ro"]})
    lent = host.machines[other].handle.spec.mounts
    assert {mount.destination: mount.read_only for mount in lent} == {"/data": True, "/named": True}
    await api("DELETE", f"/containers/{container}?v=1")
    assert len(host.volumes) == 2, "the other container still uses it"
    await api("DELETE", f"/containers/{other}?v=1")
    assert list(host.volumes) == ["kept"]


async def test_anonymous_volumes_of_a_container_that_was_not_made_are_removed(
    api: Api, host: FakeHost
) -> None:
    await api.create(name="web")
    body = {"Image": "busybox", "Volumes": {"/data": {}}}
    assert (await api("POST", "/containers/create?name=web", body)).status == 409
    assert host.volumes == {}


async def test_endpoints(api: Api, host: FakeHost) -> None:
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    host.add_network("e" * 64, "front", "10.8.0.0/24", "10.8.0.1")
    target = await api.create(name="target")
    container = await api.create(
        HostConfig={"NetworkMode": "back", "Links": ["target:db"]},
        NetworkingConfig={
            "EndpointsConfig": {
                "back": {"IPAMConfig": {"IPv4Address": "10.9.0.7"}, "Aliases": ["a"], "GwPriority": 5},
                "front": {"Links": ["/target:/x/cache"], "MacAddress": "02-00-00-00-00-AA"},
            }
        },
    )
    first, second = host.machines[container].handle.spec.endpoints
    assert (first.network, first.ipv4, list(first.aliases), first.gateway_priority) == (
        "d" * 64,
        "10.9.0.7",
        ["a"],
        5,
    )
    assert list(first.links) == [f"{target}:db"]
    assert (second.network, list(second.links), second.mac) == (
        "e" * 64,
        [f"{target}:cache"],
        "02:00:00:00:00:aa",
    )
    shown = (await api("GET", f"/containers/{container}/json")).json
    assert set(shown["NetworkSettings"]["Networks"]) == {"back", "front"}
    assert shown["HostConfig"]["Links"][0].startswith("/target:/")


async def test_no_network(api: Api, host: FakeHost) -> None:
    container = await api.create(HostConfig={"NetworkMode": "none"})
    assert list(host.machines[container].handle.spec.endpoints) == []
    shown = (await api("GET", f"/containers/{container}/json")).json
    assert list(shown["NetworkSettings"]["Networks"]) == ["none"]
    assert shown["HostConfig"]["NetworkMode"] == "none"


@pytest.mark.parametrize(
    ("mode", "endpoint", "message"),
    [
        (
            "bridge",
            {"IPAMConfig": {"IPv4Address": "172.30.0.9"}},
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "bridge",
            {"Aliases": ["x"]},
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (
            "back",
            {"IPAMConfig": {"IPv4Address": "10.1.0.1"}},
            "invalid endpoint settings:\nno configured subnet contains IP address 10.1.0.1",
        ),
        (
            "back",
            {"IPAMConfig": {"IPv4Address": "::1"}},
            "invalid endpoint settings:\ninvalid IPv4 address: ::1",
        ),
        ("back", {"MacAddress": "zz"}, "invalid MAC address zz"),
    ],
)
async def test_bad_endpoints(api: Api, host: FakeHost, mode: str, endpoint: Any, message: str) -> None:
    host.add_network("d" * 64, "back", "10.9.0.0/24", "10.9.0.1")
    body = {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": mode},
        "NetworkingConfig": {"EndpointsConfig": {mode: endpoint}},
    }
    reply = await api("POST", "/containers/create", body)
    assert (reply.status, reply.message) == (400, message)
    assert host.machines == {}


async def test_operation_ids_reach_the_port_layer(api: Api, host: FakeHost) -> None:
    host.operations.clear()
    await api.create()
    assert len(set(host.operations)) == 1
    assert len(host.operations[0]) == 16


async def test_a_name_that_the_body_repeats(api: Api) -> None:
    body = {"Image": "busybox", "name": "box"}
    assert (await api("POST", "/containers/create?name=box", body)).status == 201
    reply = await api("POST", "/containers/create?name=other", body)
    assert (reply.status, "belongs into the query" in reply.message) == (400, True)
