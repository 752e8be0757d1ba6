import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.errors import PortLayerError
from portlayer.network.ipam import (
    AddressPool,
    HostRoute,
    check_overlap,
    choose_subnet,
    mac_from_ipv4,
    mac_from_text,
    parse_mac,
    plan,
    unique_local_range,
)
from portlayer.portlayer_pb2 import Pool, Reason


def net(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def pool_of(subnet: str, **fields: object) -> AddressPool:
    return AddressPool(plan(Pool(subnet=subnet, **fields)), network="front (id)")  # type: ignore[arg-type]


class TestPlan:
    def test_gateway_is_the_first_address(self) -> None:
        assert str(plan(Pool(subnet="10.1.0.0/24")).gateway) == "10.1.0.1"
        assert str(plan(Pool(subnet="fd00:1::/64")).gateway) == "fd00:1::1"

    def test_host_bits_of_a_subnet_are_ignored(self) -> None:
        assert str(plan(Pool(subnet="10.1.0.7/24")).subnet) == "10.1.0.0/24"

    def test_gateway_comes_from_the_range_and_avoids_reserved_addresses(self) -> None:
        found = plan(Pool(subnet="10.1.0.0/16", ip_range="10.1.5.0/24", reserved={"printer": "10.1.5.1"}))
        assert str(found.gateway) == "10.1.5.2"

    def test_all_that_was_given_is_kept(self) -> None:
        wanted = Pool(
            subnet="10.1.0.0/16", gateway="10.1.0.254", ip_range="10.1.5.0/24", reserved={"a": "10.1.9.9"}
        )
        assert plan(wanted).message() == wanted

    @pytest.mark.parametrize(
        ("pool", "words"),
        [
            (Pool(subnet="10.1.0.0/33"), "invalid subnet"),
            (Pool(subnet="nonsense"), "invalid subnet"),
            (Pool(subnet="127.0.0.0/8"), "not usable"),
            (Pool(subnet="224.0.0.0/24"), "not usable"),
            (Pool(subnet="fe80::/64"), "not usable"),
            (Pool(subnet="0.0.0.0/0"), "invalid subnet"),
            (Pool(subnet="10.1.0.0/31"), "no room"),
            (Pool(subnet="fd00::/127"), "no room"),
            (Pool(subnet="10.1.0.0/24", gateway="10.2.0.1"), "no matching subnet for gateway"),
            (Pool(subnet="10.1.0.0/24", gateway="10.1.0.255"), "network's own"),
            (Pool(subnet="10.1.0.0/24", gateway="10.1.0.0"), "network's own"),
            (Pool(subnet="10.1.0.0/24", ip_range="10.2.0.0/24"), "no matching subnet for range"),
            (Pool(subnet="10.1.0.0/24", ip_range="fd00::/64"), "no matching subnet for range"),
            (Pool(subnet="10.1.0.0/24", reserved={"a": "10.2.0.1"}), "no matching subnet for aux-address"),
            (Pool(subnet="fd00::/64", gateway="fd00::1%eth0"), "zone"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, pool: Pool, words: str) -> None:
        with pytest.raises(PortLayerError, match=words) as caught:
            plan(pool)
        assert caught.value.reason == Reason.UNSPECIFIED

    def test_gateway_must_not_be_reserved(self) -> None:
        with pytest.raises(PortLayerError, match="Address already in use"):
            plan(Pool(subnet="10.1.0.0/24", gateway="10.1.0.9", reserved={"a": "10.1.0.9"}))


class TestOverlap:
    def test_with_another_network(self) -> None:
        with pytest.raises(
            PortLayerError, match="Pool overlaps with other one on this address space"
        ) as caught:
            check_overlap(net("10.1.0.0/24"), [net("10.1.0.0/16")], [])
        assert caught.value.reason == Reason.POOL_OVERLAP

    def test_with_a_route_of_the_host(self) -> None:
        routes = [HostRoute(destination=net("10.1.0.0/28"), interface="eth0")]
        with pytest.raises(PortLayerError, match=r"Pool overlaps .* 10\.1\.0\.0/28 by eth0"):
            check_overlap(net("10.1.0.0/24"), [], routes)

    def test_neighbours_do_not_overlap(self) -> None:
        routes = [HostRoute(destination=net("fd00::/64"), interface="eth0")]
        check_overlap(net("10.1.0.0/24"), [net("10.1.1.0/24")], routes)


class TestChoose:
    def test_the_first_that_nobody_uses(self) -> None:
        routes = [HostRoute(destination=net("172.30.1.0/25"), interface="eth0")]
        found = choose_subnet(net("172.30.0.0/16"), 24, [net("172.30.0.0/24")], routes)
        assert found == net("172.30.2.0/24")

    def test_none_is_left(self) -> None:
        with pytest.raises(PortLayerError, match="fully subnetted"):
            choose_subnet(net("172.30.0.0/23"), 24, [net("172.30.0.0/24"), net("172.30.1.0/24")], [])

    def test_ranges_of_two_vchs_differ_and_are_stable(self) -> None:
        first, second = unique_local_range("a" * 32), unique_local_range("b" * 32)
        assert first == unique_local_range("a" * 32) != second
        assert first.subnet_of(ipaddress.IPv6Network("fd00::/8")) and first.prefixlen == 48


class TestPool:
    def test_lowest_first_without_network_gateway_reserved_and_broadcast(self) -> None:
        pool = pool_of("10.1.0.0/29", reserved={"a": "10.1.0.3"})
        assert [str(pool.take(str(n))) for n in range(4)] == ["10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
        with pytest.raises(PortLayerError, match=r"no available IPv4 addresses .* front \(id\)") as caught:
            pool.take("x")
        assert caught.value.reason == Reason.ADDRESS_IN_USE

    def test_a_released_address_is_the_next_one(self) -> None:
        pool = pool_of("10.1.0.0/24")
        first, _ = pool.take("a"), pool.take("b")
        pool.free(first)
        pool.free(first)
        assert pool.take("c") == first

    def test_a_wanted_address_may_lie_outside_the_range(self) -> None:
        pool = pool_of("10.1.0.0/16", ip_range="10.1.5.0/24")
        assert str(pool.take("a", "10.1.9.9")) == "10.1.9.9"
        assert str(pool.take("b")) == "10.1.5.0"  # an address like any other inside a larger subnet

    @pytest.mark.parametrize("wanted", ["10.1.0.1", "10.1.0.0", "10.1.0.255", "10.1.0.9", "10.1.0.44"])
    def test_taken_addresses_are_refused_in_docker_s_words(self, wanted: str) -> None:
        pool = pool_of("10.1.0.0/24", reserved={"a": "10.1.0.9"})
        pool.take("somebody", "10.1.0.44")
        with pytest.raises(PortLayerError, match="Address already in use") as caught:
            pool.take("me", wanted)
        assert caught.value.reason == Reason.ADDRESS_IN_USE

    def test_an_owner_may_ask_twice(self) -> None:
        pool = pool_of("10.1.0.0/24")
        assert pool.take("me", "10.1.0.44") == pool.take("me", "10.1.0.44/24")

    def test_outside_the_subnet(self) -> None:
        with pytest.raises(PortLayerError, match=r"no configured subnet contains IP address 10\.2\.0\.1"):
            pool_of("10.1.0.0/24").take("me", "10.2.0.1")

    def test_a_large_ipv6_pool_is_no_trouble(self) -> None:
        pool = pool_of("fd00::/64")
        assert [str(pool.take(str(n))) for n in range(3)] == ["fd00::2", "fd00::3", "fd00::4"]

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("take"), st.integers(0, 30)),
                st.tuples(st.just("free"), st.integers(0, 31)),
                st.tuples(st.just("want"), st.integers(0, 31)),
            ),
            max_size=80,
        )
    )
    def test_never_twice_and_never_outside(self, steps: list[tuple[str, int]]) -> None:
        pool = pool_of("10.1.0.0/27", ip_range="10.1.0.8/29", reserved={"a": "10.1.0.10"})
        leased: dict[object, str] = {}
        for number, (step, index) in enumerate(steps):
            address = pool.plan.subnet[index]
            owner = f"owner{number}"
            try:
                if step == "free":
                    pool.free(address)
                    leased.pop(address, None)
                    continue
                found = pool.take(owner, str(address) if step == "want" else "")
            except PortLayerError:
                if step == "take":
                    free = {a for a in net("10.1.0.8/29") if a not in leased}
                    assert free <= {pool.plan.gateway, *pool.plan.reserved.values()}
                continue
            assert found not in leased
            assert found != pool.plan.gateway and str(found) != "10.1.0.10"
            assert step == "want" or found in pool.plan.ip_range
            leased[found] = owner
        assert all(pool.owner(address) == owner for address, owner in leased.items())  # type: ignore[arg-type]


class TestMac:
    def test_docker_s_scheme(self) -> None:
        assert mac_from_ipv4(ipaddress.IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"

    def test_without_ipv4(self) -> None:
        assert mac_from_text("a") != mac_from_text("b")
        assert parse_mac(mac_from_text("a")).startswith("02:42:")

    @pytest.mark.parametrize("text", ["02-42-AC-11-00-02", "02:42:ac:11:00:02"])
    def test_spellings(self, text: str) -> None:
        assert parse_mac(text) == "02:42:ac:11:00:02"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:0g",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:42:ac:11:0:2",
        ],
    )
    def test_what_is_no_unicast_address_is_refused(self, text: str) -> None:
        with pytest.raises(PortLayerError, match="invalid MAC"):
            parse_mac(text)
