import errno
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.errors import PortLayerError
from portlayer.network.ports import HostPort, PortTable
from portlayer.portlayer_pb2 import PortBinding, Reason


class FakeHost:
    """The host's sockets: who holds which port, and what other programs have."""

    def __init__(self) -> None:
        self.busy: dict[int, int] = {}  # port -> errno
        self.held: list[HostPort] = []

    def hold(self, port: HostPort) -> "FakeHold":
        if port.port in self.busy:
            raise OSError(self.busy[port.port], "Address already in use")
        assert not any(port.conflicts(other) for other in self.held), "bound twice"
        self.held.append(port)
        return FakeHold(lambda: self.held.remove(port))


class FakeHold:
    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def table(host: FakeHost) -> PortTable:
    return PortTable(ephemeral=range(40000, 40004), hold=host.hold)


def tcp(port: int = 0, end: int = 0, ip: str = "", assigned: int = 0, protocol: str = "tcp") -> PortBinding:
    return PortBinding(
        container_port=80,
        protocol=protocol,
        host_ip=ip,
        host_port=port,
        host_port_end=end,
        assigned_port=assigned,
    )


def assigned(bindings: list[PortBinding]) -> list[int]:
    return [binding.assigned_port for binding in bindings]


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (("tcp", ""), ("tcp", ""), True),
        (("tcp", ""), ("tcp", "127.0.0.1"), True),
        (("tcp", "::1"), ("tcp", ""), True),
        (("tcp", "0.0.0.0"), ("tcp", "127.0.0.1"), True),
        (("tcp", "::"), ("tcp", "::1"), True),
        (("tcp", "0.0.0.0"), ("tcp", "::"), False),
        (("tcp", "0.0.0.0"), ("tcp", "::1"), False),
        (("tcp", "127.0.0.1"), ("tcp", "127.0.0.2"), False),
        (("tcp", ""), ("udp", ""), False),
    ],
)
def test_conflict_rules(first: tuple[str, str], second: tuple[str, str], conflict: bool) -> None:
    a, b = (HostPort(protocol=p, address=address, port=80) for p, address in (first, second))
    assert a.conflicts(b) is conflict and b.conflicts(a) is conflict
    assert not a.conflicts(HostPort(protocol=a.protocol, address=a.address, port=81))


def test_a_port_belongs_to_one_container(table: PortTable) -> None:
    table.reserve("a", [tcp(8080)])
    with pytest.raises(
        PortLayerError, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"
    ) as caught:
        table.reserve("b", [tcp(8080)])
    assert caught.value.reason == Reason.PORT_IN_USE
    table.release("a")
    assert assigned(table.reserve("b", [tcp(8080)])) == [8080]


def test_a_listener_of_the_host_is_seen(table: PortTable, host: FakeHost) -> None:
    host.busy[8080] = errno.EADDRINUSE
    with pytest.raises(
        PortLayerError, match=r"failed to bind host port 0\.0\.0\.0:8080/tcp: address already in use"
    ):
        table.reserve("a", [tcp(8080)])


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EADDRNOTAVAIL, Reason.UNSPECIFIED),
        (errno.EMFILE, Reason.LIMIT_EXCEEDED),
        (errno.EACCES, Reason.PORT_IN_USE),
    ],
)
def test_other_refusals_keep_the_host_s_words(
    table: PortTable, host: FakeHost, number: int, reason: Reason.ValueType
) -> None:
    host.busy[8080] = number
    with pytest.raises(PortLayerError, match=r"failed to bind host port 10\.0\.0\.1:8080/tcp") as caught:
        table.reserve("a", [tcp(8080, ip="10.0.0.1")])
    assert caught.value.reason == reason


def test_all_or_nothing(table: PortTable, host: FakeHost) -> None:
    table.reserve("a", [tcp(81)])
    with pytest.raises(PortLayerError):
        table.reserve("b", [tcp(80), tcp(81)])
    assert [port.port for port in host.held] == [81]
    table.reserve("c", [tcp(80)])


def test_a_range_gives_the_first_free(table: PortTable, host: FakeHost) -> None:
    table.reserve("a", [tcp(8000)])
    host.busy[8001] = errno.EADDRINUSE
    assert assigned(table.reserve("b", [tcp(8000, 8003)])) == [8002]
    assert assigned(table.reserve("c", [tcp(8000, 8003)])) == [8003]
    with pytest.raises(PortLayerError, match="all ports are allocated in 8000-8003"):
        table.reserve("d", [tcp(8000, 8003)])


def test_any_free_port_comes_from_the_ephemeral_range_and_is_not_reused_at_once(table: PortTable) -> None:
    assert assigned(table.reserve("a", [tcp()])) == [40000]
    table.release("a")
    assert assigned(table.reserve("b", [tcp()])) == [40001]
    assert assigned(table.reserve("c", [tcp(), tcp()])) == [40002, 40003]
    assert assigned(table.reserve("d", [tcp()])) == [40000]
    with pytest.raises(PortLayerError, match="all ports are allocated"):
        table.reserve("e", [tcp()])


def test_a_port_once_chosen_is_kept_over_a_restart_when_it_is_free(table: PortTable) -> None:
    assert assigned(table.reserve("a", [tcp(assigned=40003)])) == [40003]
    assert assigned(table.reserve("b", [tcp(assigned=40003)])) == [40000]
    assert assigned(table.reserve("c", [tcp(8000, 8009, assigned=8005)])) == [8005]


def test_asking_again_keeps_what_is_still_wanted(table: PortTable, host: FakeHost) -> None:
    table.reserve("a", [tcp(80), tcp(81)])
    table.reserve("a", [tcp(81), tcp(82)])
    assert sorted(port.port for port in host.held) == [81, 82]
    with pytest.raises(PortLayerError):
        table.reserve("a", [tcp(90), tcp(70000)])
    assert sorted(port.port for port in host.held) == [81, 82]
    assert table.owner(HostPort(protocol="tcp", address="", port=81)) == "a"


def test_one_binding_twice_in_one_container_is_a_conflict(table: PortTable) -> None:
    with pytest.raises(PortLayerError, match="already allocated"):
        table.reserve("a", [tcp(80), tcp(80, ip="127.0.0.1")])


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (PortBinding(container_port=80, protocol="icmp", host_port=1), "invalid protocol 'icmp'"),
        (PortBinding(container_port=0, protocol="tcp", host_port=1), "invalid container port"),
        (
            PortBinding(container_port=80, protocol="tcp", host_port=9, host_port_end=8),
            "invalid host port range",
        ),
        (PortBinding(container_port=80, protocol="tcp", host_port=65536), "invalid host port range"),
        (PortBinding(container_port=80, protocol="tcp", host_ip="nowhere", host_port=1), "invalid host IP"),
    ],
)
def test_nonsense_is_refused(table: PortTable, binding: PortBinding, words: str) -> None:
    with pytest.raises(PortLayerError, match=words):
        table.reserve("a", [binding])


def test_addresses_have_one_spelling(table: PortTable) -> None:
    (filled,) = table.reserve("a", [tcp(80, ip="[0:0:0:0:0:0:0:1]")])
    assert filled.host_ip == "::1"


def test_restoring_takes_the_assigned_ports_and_survives_a_thief(table: PortTable, host: FakeHost) -> None:
    host.busy[81] = errno.EADDRINUSE
    table.restore("a", [tcp(80, assigned=80), tcp(assigned=81), tcp(99)])
    assert [port.port for port in host.held] == [80]
    for port in (80, 81):
        with pytest.raises(PortLayerError, match="already allocated"):
            table.reserve("b", [tcp(port)])
    table.release("a")
    host.busy.clear()
    assert assigned(table.reserve("b", [tcp(80), tcp(81), tcp(99)])) == [80, 81, 99]


def test_two_specifications_with_one_port_do_not_steal(table: PortTable, host: FakeHost) -> None:
    table.restore("a", [tcp(80, assigned=80)])
    table.restore("b", [tcp(80, assigned=80)])
    table.release("b")
    assert [port.port for port in host.held] == [80]
    assert table.owner(HostPort(protocol="tcp", address="", port=80)) == "a"


def test_close_lets_go_of_everything(table: PortTable, host: FakeHost) -> None:
    table.reserve("a", [tcp(80)])
    table.close()
    table.release("a")
    assert host.held == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.booleans(),
            st.lists(
                st.tuples(
                    st.sampled_from([80, 81, 40000, 0]),
                    st.sampled_from(["", "0.0.0.0", "::", "127.0.0.1", "::1"]),
                    st.sampled_from(["tcp", "udp"]),
                ),
                max_size=3,
            ),
        ),
        max_size=30,
    )
)
def test_held_is_what_is_reserved_and_nothing_conflicts(
    steps: list[tuple[str, bool, list[tuple[int, str, str]]]],
) -> None:
    host = FakeHost()
    table = PortTable(ephemeral=range(40000, 40003), hold=host.hold)
    wanted: dict[str, set[tuple[str, str, int]]] = {}
    for container, release, ports in steps:
        if release:
            table.release(container)
            wanted.pop(container, None)
            continue
        try:
            done = table.reserve(container, [tcp(port, ip=ip, protocol=kind) for port, ip, kind in ports])
        except PortLayerError:
            pass
        else:
            wanted[container] = {(b.protocol, b.host_ip, b.assigned_port) for b in done}
        held = {(port.protocol, port.address, port.port) for port in host.held}
        assert held == set().union(*wanted.values())
