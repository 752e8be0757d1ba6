import dataclasses
import ipaddress

import pytest

from portlayer.errors import PortLayerError
from portlayer.network.attachment import Attachment
from portlayer.network.names import Upstreams
from portlayer.network.registry import Registry
from portlayer.network.ruleset import Guest
from portlayer.network.switch import Switch, tap_alias
from portlayer.portlayer_pb2 import Endpoint, Network, PortBinding, Reason
from tether.tether_pb2 import Resolver

VCH = "f" * 32
C1, C2 = "1" * 64, "2" * 64


class World:
    def __init__(self) -> None:
        ranges = {4: ipaddress.ip_network("172.30.0.0/16"), 6: ipaddress.ip_network("fd00::/48")}
        self.registry = Registry(ranges=ranges, width=24)
        self.switch = Switch(self.registry, vch=VCH, owner=99)
        self.ids = {}
        for name, internal, ipv6 in (("a", False, False), ("b", False, True), ("in", True, False)):
            entry = self.registry.prepare(Network(name=name, internal=internal, enable_ipv6=ipv6), [])
            self.registry.add(entry)
            self.ids[name] = entry.id
        none = self.registry.prepare(Network(name="none", type="none", builtin=True), [])
        self.registry.add(none)
        self.ids["none"] = none.id

    def attachment(self, container: str, *networks: str, **fields: object) -> Attachment:
        endpoints = [
            self.registry.allocate(container, Endpoint(network=self.ids[network])) for network in networks
        ]
        return Attachment(container=container, name=f"n{container[0]}", endpoints=endpoints, **fields)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def port(host: int, ip: str = "") -> PortBinding:
    return PortBinding(container_port=80, protocol="tcp", host_ip=ip, assigned_port=host)


def test_taps_are_named_after_container_and_endpoint(world: World) -> None:
    attachment = world.attachment(C1, "a", "b")
    nics = world.switch.plug(attachment).nics(world.ids.values())
    assert [nic.tap for nic in nics] == [f"mt11111111{e.endpoint_id[:2]}" for e in attachment.endpoints]
    assert [nic.network for nic in nics] == [world.ids["a"], world.ids["b"]]
    assert nics[0].mac == "02:42:ac:1e:00:02" and nics[0].mtu == 1500
    assert nics[0].bridge == world.registry.get(world.ids["a"]).network.bridge
    assert all(len(nic.tap) <= 15 for nic in nics)


def test_containers_and_endpoints_that_look_alike_get_different_taps(world: World) -> None:
    taps = set()
    for n in range(20):
        endpoint = Endpoint(network=world.ids["a"], endpoint_id="00" * 32)
        container = f"{'1' * 8}{n:056x}"
        leased = world.registry.allocate(container, endpoint)
        taps |= world.switch.plug(
            Attachment(container=container, name=f"{n}", endpoints=[leased])
        ).tap_names()
    assert len(taps) == 20


def test_plugging_again_keeps_taps_and_names_of_interfaces(world: World) -> None:
    before = world.switch.plug(world.attachment(C1, "a", "b"))
    after = world.switch.plug(world.attachment(C1, "b", "in"))
    b, inside = world.ids["b"], world.ids["in"]
    assert after.taps[b] == before.taps[b]
    assert after.interface_names == {b: "eth1", inside: "eth2", world.ids["a"]: "eth0"}


def test_an_endpoint_that_is_not_named_stays_until_it_is_unplugged(world: World) -> None:
    a, b = world.ids["a"], world.ids["b"]
    first = world.switch.plug(world.attachment(C1, "a", "b"))
    second = world.switch.plug(world.attachment(C1, "b"))
    assert second.taps == first.taps and world.switch.is_plugged(C1, a)
    assert [nic.network for nic in second.nics([b])] == [b]
    world.switch.put(C1, second.without(a))
    assert not world.switch.is_plugged(C1, a)
    third = world.switch.plug(world.attachment(C1, "b", "in"))
    assert third.interface_names == {b: "eth1", world.ids["in"]: "eth0"}


def test_a_former_life_is_continued(world: World) -> None:
    attachment = world.attachment(C1, "a", "b")
    present = {
        "mtodd": tap_alias(VCH, C1, world.ids["b"], "eth7"),
        "mtother": tap_alias("e" * 32, C1, world.ids["a"], "eth9"),
    }
    plug = world.switch.plug(attachment, present=present)
    assert plug.taps[world.ids["b"]] == "mtodd"
    assert plug.interface_names == {world.ids["a"]: "eth0", world.ids["b"]: "eth7"}
    assert "mtother" not in plug.tap_names()


def test_the_alias_fits_the_kernel_s_limit() -> None:
    assert len(tap_alias(VCH, C1, C2, "x" * 15)) < 256


def test_links(world: World) -> None:
    (link,) = world.switch.links(world.switch.plug(world.attachment(C1, "a")))
    assert (link.owner, link.isolated, link.mtu) == (99, False, 1500)
    assert link.alias == tap_alias(VCH, C1, world.ids["a"], "eth0")


def test_published_ports_lead_to_the_endpoint_with_the_default_route(world: World) -> None:
    plug = world.switch.plug(world.attachment(C1, "b", "a", ports=[port(8080), port(0)]))
    (published,) = plug.published()
    assert (published.ipv4, published.ipv6) == ("172.30.0.2", "fd00::2")  # a is first by name, b has IPv6
    assert plug.ports() == {("tcp", 8080, "172.30.0.2 fd00::2")}


def test_the_network_s_host_binding_applies_to_ports_without_an_address(world: World) -> None:
    option = "com.docker.network.bridge.host_binding_ipv4"
    entry = world.registry.prepare(Network(name="bound", options={option: "127.0.0.1"}), [])
    world.registry.add(entry)
    world.ids["bound"] = entry.id
    plug = world.switch.plug(world.attachment(C1, "bound", ports=[port(80), port(81, "10.0.0.1")]))
    assert [p.address for p in plug.published()] == ["127.0.0.1", "10.0.0.1"]


def test_internal_networks_publish_nothing(world: World) -> None:
    assert world.switch.plug(world.attachment(C1, "in", ports=[port(8080)])).published() == []


def test_an_ipv6_host_address_needs_an_ipv6_network(world: World) -> None:
    with pytest.raises(PortLayerError, match="publishing on ::1:8080 needs a network with IPv6") as caught:
        world.switch.plug(world.attachment(C1, "a", ports=[port(8080, "::1")]))
    assert caught.value.reason == Reason.NOT_SUPPORTED
    assert world.switch.find(C1) is None
    assert world.switch.plug(world.attachment(C1, "a", "b", ports=[port(8080, "::1")])).published()


def test_none_has_no_interface(world: World) -> None:
    plug = world.switch.plug(world.attachment(C1, "none"))
    assert plug.nics(world.ids.values()) == [] and plug.guests() == []


def test_guests(world: World) -> None:
    plug = world.switch.plug(world.attachment(C1, "b"))
    (tap,) = plug.tap_names()
    assert plug.guests() == [Guest(tap=tap, mac="02:42:ac:1e:01:02", ipv4="172.30.1.2", ipv6="fd00::2")]


def test_the_dns_client(world: World) -> None:
    attachment = dataclasses.replace(
        world.attachment(C1, "in", "b"),
        hostname="box",
        resolver=Resolver(servers=["127.0.0.1", "192.0.2.53"]),
    )
    attachment.endpoints[1].links.append(f"{C2}:db")
    client = world.switch.plug(attachment).client()
    assert [member.network_name for member in client.members] == ["b", "in"]  # the way out first
    assert client.members[0].names() == {"n1", "1" * 12, "box"}
    assert client.members[0].links == ((C2, "db"),)
    assert client.upstreams == Upstreams(servers=("192.0.2.53",), external=True)
    assert world.switch.plug(world.attachment(C2, "in")).client().upstreams.external is False


def test_without_a_network(world: World) -> None:
    plug = world.switch.plug(world.attachment(C1, "a", "b", ports=[port(1)])).without(world.ids["a"])
    assert set(plug.placed) == set(plug.taps) == set(plug.interface_names) == {world.ids["b"]}
    assert [e.network for e in plug.attachment.endpoints] == [world.ids["b"]]
    assert plug.published()[0].ipv4 == "172.30.1.2"


def test_renaming_keeps_taps(world: World) -> None:
    before = world.switch.plug(world.attachment(C1, "a"))
    after = world.switch.rename(before, dataclasses.replace(before.attachment, name="other"))
    assert after.taps == before.taps and after.client().members[0].name == "other"
    assert world.switch.find(C1) == after


def test_renaming_does_not_lose_an_endpoint_that_waits_for_its_unplugging(world: World) -> None:
    before = world.switch.plug(world.attachment(C1, "a", "b"))
    world.switch.plug(world.attachment(C1, "b"))
    renamed = world.switch.rename(before, dataclasses.replace(world.attachment(C1, "b"), name="other"))
    assert renamed.taps == before.taps and set(renamed.placed) == set(before.placed)
