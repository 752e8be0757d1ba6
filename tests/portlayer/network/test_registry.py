import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.errors import PortLayerError
from portlayer.network.ipam import HostRoute
from portlayer.network.registry import Entry, Registry, bridge_mac
from portlayer.portlayer_pb2 import Endpoint, Network, Pool, Reason

RANGES = {4: ipaddress.ip_network("172.30.0.0/16"), 6: ipaddress.ip_network("fd00:1:2::/48")}


@pytest.fixture
def registry() -> Registry:
    return Registry(ranges=RANGES, width=24)


def create(registry: Registry, name: str = "front", **fields: object) -> Entry:
    entry = registry.prepare(Network(name=name, **fields), [])  # type: ignore[arg-type]
    registry.add(entry)
    return entry


def refused(registry: Registry, network: Network, reason: Reason.ValueType, words: str) -> None:
    before = dict(registry.entries)
    with pytest.raises(PortLayerError, match=words) as caught:
        registry.prepare(network, [])
    assert caught.value.reason == reason
    assert registry.entries == before


class TestNetworks:
    def test_all_that_is_open_is_filled_in(self, registry: Registry) -> None:
        network = create(registry, enable_ipv6=True).network
        assert len(network.id) == 64 and network.bridge == "mr" + network.id[:10]
        assert network.type == "bridge"
        assert list(network.pools) == [
            Pool(subnet="172.30.0.0/24", gateway="172.30.0.1"),
            Pool(subnet="fd00:1:2::/64", gateway="fd00:1:2::1"),
        ]

    def test_subnets_avoid_networks_and_routes(self, registry: Registry) -> None:
        create(registry, "a")
        routes = [HostRoute(destination=ipaddress.ip_network("172.30.1.0/24"), interface="mrother")]
        entry = registry.prepare(Network(name="b"), routes)
        assert entry.network.pools[0].subnet == "172.30.2.0/24"

    def test_one_family_may_be_given_and_the_other_chosen(self, registry: Registry) -> None:
        entry = create(registry, enable_ipv6=True, pools=[Pool(subnet="fd00:9::/64", gateway="fd00:9::9")])
        assert [pool.subnet for pool in entry.network.pools] == ["172.30.0.0/24", "fd00:9::/64"]
        assert entry.gateways() == ("172.30.0.1", "fd00:9::9")

    def test_what_is_refused(self, registry: Registry) -> None:
        entry = create(registry)
        fixed = "com.docker.network.bridge.name"
        create(registry, "named", options={fixed: "br9"})
        for network, reason, words in (
            (Network(name="front"), Reason.NAME_IN_USE, "network with name front already exists"),
            (Network(name="x", id=entry.id), Reason.NAME_IN_USE, "already exists"),
            (Network(name="x", options={fixed: "br9"}), Reason.NAME_IN_USE, "bridge br9 already exists"),
            (Network(name=""), Reason.UNSPECIFIED, "invalid network name"),
            (Network(name="x" * 256), Reason.UNSPECIFIED, "invalid network name"),
            (Network(name="x", metadata=bytes(1 << 20)), Reason.LIMIT_EXCEEDED, "more than"),
            (Network(name="x", id="../etc"), Reason.UNSPECIFIED, "invalid network ID"),
            (Network(name="x", type="container"), Reason.NOT_SUPPORTED, "'container' is not supported"),
            (Network(name="x", type="none"), Reason.NOT_SUPPORTED, "'none' is not supported"),
            (Network(name="x", pools=[Pool(subnet="172.30.0.0/25")]), Reason.POOL_OVERLAP, "Pool overlaps"),
            (Network(name="x", pools=[Pool(subnet="fd00::/64")]), Reason.UNSPECIFIED, "IPv6 is not enabled"),
            (Network(name="x", pools=[Pool(gateway="10.0.0.1")]), Reason.UNSPECIFIED, "need a subnet"),
            (
                Network(name="x", pools=[Pool(subnet="10.1.0.0/24"), Pool(subnet="10.2.0.0/24")]),
                Reason.POOL_OVERLAP,
                "bridge driver doesn't support multiple subnets",
            ),
            (Network(name="x", options={"a": "b"}), Reason.NOT_SUPPORTED, "a=b"),
        ):
            refused(registry, network, reason, words)

    def test_restoring_gives_the_same_network(self, registry: Registry) -> None:
        entry = create(
            registry,
            enable_ipv6=True,
            pools=[Pool(subnet="10.0.0.0/24", ip_range="10.0.0.128/25", reserved={"a": "10.0.0.200"})],
        )
        other = Registry(ranges=RANGES, width=24).restore(entry.network)
        assert other.rules() == entry.rules() and bridge_mac(other) == bridge_mac(entry)
        assert other.network == entry.network

    def test_unknown_networks(self, registry: Registry) -> None:
        with pytest.raises(PortLayerError, match="network nope not found") as caught:
            registry.get("nope")
        assert caught.value.reason == Reason.NO_SUCH_NETWORK


class TestLeases:
    def test_everything_is_assigned(self, registry: Registry) -> None:
        entry = create(registry, enable_ipv6=True)
        endpoint = registry.allocate("c1", Endpoint(network=entry.id, aliases=["a"]))
        assert endpoint.assigned_ipv4 == "172.30.0.2/24" and endpoint.assigned_ipv6 == "fd00:1:2::2/64"
        assert (endpoint.gateway_ipv4, endpoint.gateway_ipv6) == ("172.30.0.1", "fd00:1:2::1")
        assert endpoint.assigned_mac == "02:42:ac:1e:00:02" and len(endpoint.endpoint_id) == 64
        assert list(endpoint.aliases) == ["a"]

    def test_asking_again_changes_nothing(self, registry: Registry) -> None:
        entry = create(registry)
        first = registry.allocate("c1", Endpoint(network=entry.id))
        assert registry.allocate("c1", first) == first
        assert registry.allocate("c1", Endpoint(network=entry.id)) == first
        assert registry.allocate("c2", Endpoint(network=entry.id)).assigned_ipv4 == "172.30.0.3/24"

    def test_a_specification_is_restored_as_it_was(self, registry: Registry) -> None:
        entry = create(registry, enable_ipv6=True)
        registry.allocate("c0", Endpoint(network=entry.id))
        spec = registry.allocate("c1", Endpoint(network=entry.id, mac="02:00:00:00:00:09"))
        other = Registry(ranges=RANGES, width=24)
        other.restore(entry.network)
        assert other.allocate("c1", spec) == spec
        assert other.allocate("c2", Endpoint(network=entry.id)).assigned_ipv4 == "172.30.0.2/24"

    def test_an_assigned_address_that_somebody_else_took_is_replaced(self, registry: Registry) -> None:
        entry = create(registry)
        spec = registry.allocate("c1", Endpoint(network=entry.id))
        registry.release("c1")
        registry.allocate("c2", Endpoint(network=entry.id))
        assert registry.allocate("c1", spec).assigned_ipv4 == "172.30.0.3/24"

    def test_a_wanted_address_in_use_is_refused_and_what_was_held_stays(self, registry: Registry) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        mine = registry.allocate("c2", Endpoint(network=entry.id))
        with pytest.raises(PortLayerError, match="Address already in use") as caught:
            registry.allocate("c2", Endpoint(network=entry.id, ipv4="172.30.0.2"))
        assert caught.value.reason == Reason.ADDRESS_IN_USE
        assert registry.leases["c2"][entry.id] == mine
        assert entry.pools[4].owner(ipaddress.ip_address("172.30.0.3")) == "c2"

    def test_another_wish_moves_the_lease(self, registry: Registry) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        moved = registry.allocate("c1", Endpoint(network=entry.id, ipv4="172.30.0.77"))
        assert moved.assigned_ipv4 == "172.30.0.77/24"
        assert registry.allocate("c2", Endpoint(network=entry.id)).assigned_ipv4 == "172.30.0.2/24"

    @pytest.mark.parametrize("mac", ["02:42:ac:1e:00:01", "02:42:ac:1e:00:02"])
    def test_macs_of_the_gateway_and_of_neighbours_are_refused(self, registry: Registry, mac: str) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        with pytest.raises(PortLayerError, match="MAC address already in use"):
            registry.allocate("c2", Endpoint(network=entry.id, mac=mac))
        assert registry.allocate("c3", Endpoint(network=entry.id)).assigned_ipv4 == "172.30.0.3/24"

    def test_ipv6_needs_an_ipv6_network(self, registry: Registry) -> None:
        entry = create(registry)
        with pytest.raises(PortLayerError, match="no configured subnet contains IP address fd00::9"):
            registry.allocate("c1", Endpoint(network=entry.id, ipv6="fd00::9"))
        assert registry.allocate("c2", Endpoint(network=entry.id)).assigned_ipv4 == "172.30.0.2/24"

    def test_malformed_wishes(self, registry: Registry) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        for endpoint in (Endpoint(ipv4="x"), Endpoint(mac="x"), Endpoint(ipv6="fd00::%1")):
            endpoint.network = entry.id
            for container in ("c1", "c2"):
                with pytest.raises(PortLayerError):
                    registry.allocate(container, endpoint)

    def test_internal_networks_have_no_gateway_for_the_guest(self, registry: Registry) -> None:
        entry = create(registry, internal=True)
        endpoint = registry.allocate("c1", Endpoint(network=entry.id))
        assert (endpoint.gateway_ipv4, endpoint.assigned_ipv4) == ("", "172.30.0.2/24")

    def test_the_none_network(self, registry: Registry) -> None:
        entry = create(registry, "none", type="none", builtin=True)
        endpoint = registry.allocate("c1", Endpoint(network=entry.id))
        assert endpoint.endpoint_id and not endpoint.assigned_ipv4 and not endpoint.assigned_mac
        with pytest.raises(PortLayerError, match="no addresses"):
            registry.allocate("c2", Endpoint(network=entry.id, ipv4="10.0.0.1"))

    def test_releasing_is_idempotent_and_by_network(self, registry: Registry) -> None:
        one, two = create(registry, "a"), create(registry, "b")
        for entry in (one, two):
            registry.allocate("c1", Endpoint(network=entry.id))
        registry.release("c1", one.id)
        registry.release("c1", one.id)
        assert set(registry.leases["c1"]) == {two.id}
        registry.release("c1")
        registry.release("c1")
        assert registry.leases == {} and one.macs == {} and two.macs == {}

    def test_leases_go_with_their_network(self, registry: Registry) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        registry.remove(entry.id)
        registry.release("c1")
        assert registry.leases == {}

    def test_lists_are_bounded(self, registry: Registry) -> None:
        entry = create(registry)
        with pytest.raises(PortLayerError, match="aliases"):
            registry.allocate("c1", Endpoint(network=entry.id, aliases=["a"] * 257))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["c1", "c2", "c3"]),
                st.sampled_from(["take", "release"]),
                st.sampled_from(["", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
                st.sampled_from(["", "02:00:00:00:00:01", "02:42:0a:00:00:03"]),
            ),
            max_size=40,
        )
    )
    def test_no_address_and_no_mac_twice(self, steps: list[tuple[str, str, str, str]]) -> None:
        registry = Registry(ranges=RANGES, width=24)
        entry = create(registry, pools=[Pool(subnet="10.0.0.0/29")])
        for container, step, ipv4, mac in steps:
            if step == "release":
                registry.release(container)
                continue
            try:
                registry.allocate(container, Endpoint(network=entry.id, ipv4=ipv4, mac=mac))
            except PortLayerError:
                continue
        held = {container: leases[entry.id] for container, leases in registry.leases.items() if leases}
        addresses = {c: e.assigned_ipv4.partition("/")[0] for c, e in held.items()}
        assert len(set(addresses.values())) == len(held)
        assert entry.macs == {e.assigned_mac: c for c, e in held.items()}
        owners = {str(a): entry.pools[4].owner(a) for a in ipaddress.ip_network("10.0.0.0/29")}
        assert {a: o for a, o in owners.items() if o} == {a: c for c, a in addresses.items()}

    def test_after_a_refusal_the_lease_is_what_it_was(self, registry: Registry) -> None:
        entry = create(registry)
        registry.allocate("c1", Endpoint(network=entry.id))
        registry.allocate("c2", Endpoint(network=entry.id, mac="02:00:00:00:00:01"))
        mine = registry.allocate("c2", Endpoint(network=entry.id))
        assert mine.assigned_mac == "02:00:00:00:00:01"
        with pytest.raises(PortLayerError):
            registry.allocate("c2", Endpoint(network=entry.id, ipv4="172.30.0.2"))
        assert registry.leases["c2"][entry.id] == mine
        assert entry.macs["02:00:00:00:00:01"] == "c2" and len(entry.macs) == 2
