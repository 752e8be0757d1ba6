import json
from typing import Any
from urllib.parse import quote

import pytest

from engine.context import Engine
from portlayer import portlayer_pb2 as pb
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost

BRIDGE, NONE = "b" * 64, "c" * 64


def filters(**wanted: list[str]) -> str:
    return "filters=" + quote(json.dumps(wanted))


async def create(api: Api, name: str, **body: Any) -> str:
    reply = await api("POST", "/networks/create", {"Name": name, **body})
    assert reply.status == 201, reply.body
    assert reply.json["Warning"] == ""
    return str(reply.json["Id"])


async def names(api: Api, query: str = "") -> list[str]:
    return [network["Name"] for network in (await api("GET", f"/networks?{query}")).json]


async def test_a_network_from_create_to_remove(api: Api, host: FakeHost) -> None:
    made = await create(
        api,
        "net",
        CheckDuplicate=True,
        Driver="bridge",
        Internal=True,
        Attachable=True,
        EnableIPv6=True,
        Options={"com.docker.network.driver.mtu": "1400"},
        Labels={"k": "v"},
        IPAM={
            "Driver": "default",
            "Config": [
                {
                    "Subnet": "10.9.0.0/16",
                    "IPRange": "10.9.1.0/24",
                    "Gateway": "10.9.0.1",
                    "AuxiliaryAddresses": {"router": "10.9.0.2"},
                },
                {"Subnet": "fd00:9::/64"},
            ],
        },
    )
    stored = host.networks[made]
    assert (stored.type, stored.internal, stored.enable_ipv6) == ("bridge", True, True)
    assert dict(stored.pools[0].reserved) == {"router": "10.9.0.2"}
    shown = (await api("GET", "/networks/net")).json
    assert shown.pop("Created").startswith("20")
    assert shown == {
        "Name": "net",
        "Id": made,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": True,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [
                {
                    "Subnet": "10.9.0.0/16",
                    "IPRange": "10.9.1.0/24",
                    "Gateway": "10.9.0.1",
                    "AuxiliaryAddresses": {"router": "10.9.0.2"},
                },
                {"Subnet": "fd00:9::/64"},
            ],
        },
        "Internal": True,
        "Attachable": True,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"k": "v"},
    }
    assert (await api("DELETE", f"/networks/{made}")).status == 204
    assert made not in host.networks


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
        ({"Name": "host"}, 403, "operation is not permitted on predefined host network"),
        ({"Name": ""}, 400, "invalid network name"),
        ({"Name": "a b"}, 400, "invalid network name"),
        ({"Name": "n", "Driver": "overlay"}, 404, 'plugin "overlay" not found'),
        ({"Name": "n", "Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
        ({"Name": "n", "Scope": "swarm"}, 501, "scope swarm"),
        ({"Name": "n", "Ingress": True}, 501, "ingress"),
        ({"Name": "n", "ConfigOnly": True}, 501, "ConfigOnly"),
        ({"Name": "n", "ConfigFrom": {"Network": "x"}}, 501, "ConfigFrom"),
        ({"Name": "n", "EnableIPv4": False}, 501, "EnableIPv4=false"),
        ({"Name": "n", "IPAM": {"Driver": "dhcp"}}, 404, 'plugin "dhcp" not found'),
        ({"Name": "n", "IPAM": {"Options": {"o": "1"}}}, 501, "IPAM option o"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.1/8"}]}}, 400, "it should be 10.0.0.0/8"),
        ({"Name": "n", "IPAM": {"Config": [{"Subnet": "x"}]}}, 400, "invalid subnet x: invalid CIDR"),
        ({"Name": "n", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400, "a pool needs a subnet"),
        (
            {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "Gateway": "11.0.0.1"}]}},
            400,
            "parent subnet 10.0.0.0/8 doesn't contain it",
        ),
        (
            {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "IPRange": "11.0.0.0/16"}]}},
            400,
            "it is not inside 10.0.0.0/8",
        ),
        (
            {"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "AuxiliaryAddresses": {"a": "x"}}]}},
            400,
            "invalid auxiliary address x",
        ),
        ({"Name": "n", "IPAM": {"Config": [{}] * 17}}, 400, "IPAM"),
        ({"Name": "n", "Nosuch": 1}, 400, "Nosuch"),
    ],
)
async def test_what_cannot_be_made_is_refused_by_name(
    api: Api, host: FakeHost, body: dict[str, Any], status: int, words: str
) -> None:
    reply = await api("POST", "/networks/create", body)
    assert (reply.status, words in reply.message) == (status, True), reply.message
    assert len(host.networks) == 2


async def test_names_are_unique(api: Api) -> None:
    await create(api, "net")
    reply = await api("POST", "/networks/create", {"Name": "net"})
    assert (reply.status, reply.message) == (409, "network with name net already exists")


async def test_finding_by_id_name_and_prefix(api: Api, host: FakeHost) -> None:
    for number in (1, 2):
        host.add_network(f"{'a' * 63}{number}", f"net{number}", "10.0.0.0/24", "10.0.0.1")
    for reference in ("net1", "a" * 63 + "1"):
        assert (await api("GET", f"/networks/{reference}")).json["Name"] == "net1"
    assert (await api("GET", "/networks/bbb")).json["Name"] == "bridge"
    reply = await api("GET", "/networks/aaa")
    assert (reply.status, reply.message) == (
        400,
        "network aaa is ambiguous (2 matches found based on ID prefix)",
    )
    reply = await api("GET", "/networks/nosuch")
    assert (reply.status, reply.message) == (404, "network nosuch not found")
    assert (await api("GET", "/networks/net1?scope=swarm")).status == 404
    assert (await api("GET", "/networks/net1?verbose=true")).status == 200


async def test_the_filters_of_the_list(api: Api) -> None:
    first = await create(api, "first", Labels={"k": "v"})
    await create(api, "second", Labels={"k": "w"})
    await api.run(name="user", HostConfig={"NetworkMode": "second"})
    for query, expected in (
        ("", ["bridge", "none", "first", "second"]),
        (filters(driver=["null"]), ["none"]),
        (filters(driver=["bridge"]), ["bridge", "first", "second"]),
        (filters(type=["builtin"]), ["bridge", "none"]),
        (filters(type=["custom"]), ["first", "second"]),
        (filters(type=["custom", "builtin"]), ["bridge", "none", "first", "second"]),
        (filters(name=["ir"]), ["first"]),
        (filters(id=[first]), ["first"]),
        (filters(label=["k"]), ["first", "second"]),
        (filters(label=["k=w"]), ["second"]),
        (filters(scope=["local"]), ["bridge", "none", "first", "second"]),
        (filters(scope=["swarm"]), []),
        (filters(dangling=["true"]), ["first"]),
        (filters(dangling=["false"]), ["bridge", "none", "second"]),
    ):
        assert await names(api, query) == expected, query
    for query, words in (
        (filters(nosuch=["x"]), "invalid filter 'nosuch'"),
        (filters(type=["other"]), "'type'='other'"),
        (filters(dangling=["perhaps"]), "dangling"),
    ):
        reply = await api("GET", f"/networks?{query}")
        assert (reply.status, words in reply.message) == (400, True)


async def test_the_list_leaves_containers_out_and_inspect_shows_them(api: Api) -> None:
    await create(api, "net")
    container = await api.run(name="user", HostConfig={"NetworkMode": "net"})
    (row,) = (await api("GET", "/networks?" + filters(name=["^net$"]))).json
    assert row["Containers"] == {}
    shown = (await api("GET", "/networks/net")).json["Containers"]
    assert list(shown) == [container]
    assert shown[container]["Name"] == "user"
    assert shown[container]["IPv4Address"].endswith("/24")
    assert shown[container]["EndpointID"]


async def test_predefined_networks_stay(api: Api) -> None:
    for name in ("bridge", "none", BRIDGE):
        reply = await api("DELETE", f"/networks/{name}")
        assert reply.status == 403
        assert reply.message.endswith("is a pre-defined network and cannot be removed")


async def test_a_network_in_use_stays(api: Api) -> None:
    await create(api, "net")
    await api.run(name="user", HostConfig={"NetworkMode": "net"})
    reply = await api("DELETE", "/networks/net")
    assert (reply.status, "has active endpoints" in reply.message) == (403, True)


async def test_pruning(api: Api, host: FakeHost, engine: Engine) -> None:
    for name, labels in (("used", {}), ("kept", {"keep": ""}), ("gone", {})):
        await create(api, name, Labels=labels)
    await api.run(name="user", HostConfig={"NetworkMode": "used"})
    assert (await api("POST", "/networks/prune?" + filters(until=["1h"]))).json["NetworksDeleted"] is None
    reply = await api("POST", "/networks/prune?" + filters(**{"label!": ["keep"]}))
    assert reply.json == {"NetworksDeleted": ["gone"]}
    assert (await api("POST", "/networks/prune?" + filters(label=["keep"]))).json["NetworksDeleted"] == [
        "kept"
    ]
    assert await names(api) == ["bridge", "none", "used"]
    assert (await api("POST", "/networks/prune?" + filters(until=["1h", "2h"]))).status == 400


# ---------------------------------------------------------------------- connect and disconnect


def endpoints(host: FakeHost, container: str) -> list[pb.Endpoint]:
    return list(host.machines[container].handle.spec.endpoints)


async def test_connecting_and_disconnecting(api: Api, host: FakeHost) -> None:
    net = await create(api, "net", IPAM={"Config": [{"Subnet": "10.9.0.0/16"}]})
    friend = await api.create(name="friend")
    container = await api.run(name="user")
    reply = await api(
        "POST",
        "/networks/net/connect",
        {
            "Container": "user",
            "EndpointConfig": {
                "IPAMConfig": {"IPv4Address": "10.9.0.5"},
                "Aliases": ["alias"],
                "Links": ["friend:f"],
                "MacAddress": "02:00:00:00:00:01",
                "DriverOpts": {"com.docker.network.endpoint.ifname": "foo0"},
                "GwPriority": 5,
            },
        },
    )
    assert reply.status == 200, reply.body
    assert [endpoint.network for endpoint in endpoints(host, container)] == [BRIDGE, net]
    added = endpoints(host, container)[1]
    assert (added.ipv4, list(added.aliases), list(added.links)) == ("10.9.0.5", ["alias"], [f"{friend}:f"])
    assert (added.mac, added.gateway_priority) == ("02:00:00:00:00:01", 5)
    assert dict(added.driver_options) == {"com.docker.network.endpoint.ifname": "foo0"}
    reply = await api("POST", "/networks/net/connect", {"Container": "user"})
    assert (reply.status, reply.message) == (403, "endpoint with name user already exists in network net")
    reply = await api("POST", "/networks/bridge/disconnect", {"Container": container[:12], "Force": True})
    assert reply.status == 200
    assert [endpoint.network for endpoint in endpoints(host, container)] == [net]
    reply = await api("POST", "/networks/bridge/disconnect", {"Container": "user"})
    assert (reply.status, reply.message) == (
        500,
        f"container {container} is not connected to network bridge",
    )


@pytest.mark.parametrize(
    ("network", "body", "status", "words"),
    [
        ("nosuch", {"Container": "user"}, 404, "network nosuch not found"),
        ("net", {"Container": "nosuch"}, 404, "No such container: nosuch"),
        ("net", {}, 404, "No such container: "),
        ("none", {"Container": "user"}, 403, "private (none) mode"),
        ("net", {"Container": "lonely"}, 403, "private (none) mode"),
        ("net", {"Container": "user", "EndpointConfig": {"Links": [":x"]}}, 400, "bad format for links"),
        (
            "net",
            {"Container": "user", "EndpointConfig": {"Links": ["gone:x"]}},
            404,
            "No such container: gone",
        ),
        ("net", {"Container": "user", "EndpointConfig": {"MacAddress": "x"}}, 400, "invalid MAC address"),
        (
            "net",
            {"Container": "user", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "11.0.0.1"}}},
            400,
            "no configured subnet contains IP address 11.0.0.1",
        ),
        ("net", {"Container": "user", "EndpointConfig": {"Nosuch": "x"}}, 400, "Nosuch"),
    ],
)
async def test_what_cannot_be_connected(
    api: Api, host: FakeHost, network: str, body: dict[str, Any], status: int, words: str
) -> None:
    await create(api, "net")
    container = await api.create(name="user")
    await api.create(name="lonely", HostConfig={"NetworkMode": "none"})
    reply = await api("POST", f"/networks/{network}/connect", body)
    assert (reply.status, words in reply.message) == (status, True), reply.message
    assert len(endpoints(host, container)) == 1


async def test_a_commit_that_came_second_is_made_again(
    api: Api, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = await create(api, "net")
    container = await api.create(name="user")
    commit = host.commit
    lost = [1, 2]

    def slow(handle: pb.Handle) -> Any:
        if lost:
            lost.pop()
            host.machines[container].handle.change_version += 1
        return commit(handle)

    monkeypatch.setattr(host, "commit", slow)
    assert (await api("POST", "/networks/net/connect", {"Container": "user"})).status == 200
    assert [endpoint.network for endpoint in endpoints(host, container)] == [BRIDGE, net]
    lost.extend(range(20))
    reply = await api("POST", "/networks/net/disconnect", {"Container": "user"})
    assert (reply.status, reply.message) == (409, "somebody else committed")
