import pytest

from portlayer.network.guest import Placed, interface_names, interfaces, preferred, resolver
from portlayer.network.options import BridgeOptions
from portlayer.network.resolvconf import ResolvConf
from portlayer.portlayer_pb2 import Endpoint, Network
from tether.tether_pb2 import Interface, Resolver, Route

HOST = ResolvConf(servers=("192.0.2.1",), search=("example.org",), options=("rotate",))


def placed(
    name: str, number: int, *, priority: int = 0, internal: bool = False, ipv6: bool = False, **options: str
) -> Placed:
    endpoint = Endpoint(
        network=f"id-{name}",
        assigned_ipv4=f"10.0.{number}.2/24",
        assigned_mac=f"02:42:0a:00:{number:02x}:02",
        gateway_priority=priority,
        driver_options=options,
    )
    if ipv6:
        endpoint.assigned_ipv6 = f"fd00:{number}::2/64"
    if not internal:
        endpoint.gateway_ipv4 = f"10.0.{number}.1"
        endpoint.gateway_ipv6 = f"fd00:{number}::1" if ipv6 else ""
    return Placed(
        endpoint=endpoint,
        network=Network(id=f"id-{name}", name=name, internal=internal),
        options=BridgeOptions(mtu=1400),
        nameserver=f"10.0.{number}.1",
    )


def test_one_network() -> None:
    assert interfaces([placed("front", 1, ipv6=True)], {}) == [
        Interface(
            mac="02:42:0a:00:01:02",
            name="eth0",
            addresses=["10.0.1.2/24", "fd00:1::2/64"],
            routes=[
                Route(destination="0.0.0.0/0", gateway="10.0.1.1"),
                Route(destination="::/0", gateway="fd00:1::1"),
            ],
            mtu=1400,
        )
    ]


@pytest.mark.parametrize(
    ("networks", "way_out"),
    [
        ([placed("b", 1), placed("a", 2)], "a"),
        ([placed("b", 1, priority=1), placed("a", 2)], "b"),
        ([placed("b", 1), placed("a", 2, priority=-1)], "b"),
        ([placed("b", 1), placed("a", 2, internal=True, priority=9)], "b"),
    ],
)
def test_the_default_route(networks: list[Placed], way_out: str) -> None:
    chosen = preferred(networks, 4)
    assert chosen is not None and chosen.network.name == way_out
    with_routes = [i.mac for i in interfaces(networks, {}) if i.routes]
    assert with_routes == [chosen.endpoint.assigned_mac]


def test_each_family_has_its_own_way_out() -> None:
    networks = [placed("a", 1), placed("b", 2, ipv6=True)]
    four, six = preferred(networks, 4), preferred(networks, 6)
    assert four is not None and six is not None
    assert (four.network.name, six.network.name) == ("a", "b")


def test_internal_networks_only_give_no_route() -> None:
    assert preferred([placed("a", 1, internal=True)], 4) is None
    assert [list(i.routes) for i in interfaces([placed("a", 1, internal=True)], {})] == [[]]


def test_interfaces_are_named_in_order_and_keep_their_names() -> None:
    a, b, c = placed("a", 1), placed("b", 2), placed("c", 3)
    assert interface_names([b, a], {}) == {"id-b": "eth0", "id-a": "eth1"}
    assert interface_names([a, c], {"id-a": "eth1"}) == {"id-a": "eth1", "id-c": "eth0"}
    assert interface_names([a, b, c], {"id-b": "eth0"}) == {"id-a": "eth1", "id-b": "eth0", "id-c": "eth2"}


def test_a_wanted_interface_name_is_given_and_not_given_twice() -> None:
    wan = placed("a", 1, **{"com.docker.network.endpoint.ifname": "eth0"})
    assert interface_names([placed("b", 2), wan], {}) == {"id-b": "eth1", "id-a": "eth0"}


def test_resolver_is_ours_with_the_host_s_search_list() -> None:
    assert resolver([placed("a", 1)], Resolver(), HOST) == Resolver(
        servers=["10.0.1.1"], search=["example.org"], options=["rotate", "ndots:0"]
    )


def test_what_the_user_said_is_passed_through_but_servers_are_asked_by_us() -> None:
    wanted = Resolver(servers=["192.0.2.99"], search=["x.example"], options=["ndots:3"])
    assert resolver([placed("a", 1)], wanted, HOST) == Resolver(
        servers=["10.0.1.1"], search=["x.example"], options=["ndots:3"]
    )
    assert list(resolver([placed("a", 1)], Resolver(search=["."]), HOST).search) == []


def test_servers_inside_the_container_are_for_the_container() -> None:
    wanted = Resolver(servers=["127.0.0.1", "192.0.2.99"])
    assert list(resolver([placed("a", 1)], wanted, HOST).servers) == ["127.0.0.1", "192.0.2.99"]


def test_the_nameserver_is_on_the_network_of_the_default_route() -> None:
    networks = [placed("b", 1, internal=True), placed("c", 2)]
    assert list(resolver(networks, Resolver(), HOST).servers) == ["10.0.2.1"]
    assert list(resolver(networks[:1], Resolver(), HOST).servers) == ["10.0.1.1"]


def test_without_a_network_the_user_s_or_the_host_s() -> None:
    host = ResolvConf(servers=("127.0.0.53", "192.0.2.1"))
    assert list(resolver([], Resolver(), host).servers) == ["192.0.2.1"]
    assert list(resolver([], Resolver(servers=["192.0.2.99"]), host).servers) == ["192.0.2.99"]
