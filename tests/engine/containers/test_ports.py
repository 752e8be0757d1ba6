"""Ports: specifications in, PortBindings out, and what ps and inspect show."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.hostconfig import PortBinding
from engine.containers.ports import (
    MAX_PORTS,
    Port,
    bindings_to_spec,
    parse_port,
    parse_port_range,
    port_map,
    port_summaries,
)
from engine.http import BadRequest
from portlayer import portlayer_pb2 as pb


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80, "tcp")]),
        ("80/tcp", [Port(80, "tcp")]),
        ("53/UDP", [Port(53, "udp")]),
        ("1-3/sctp", [Port(1, "sctp"), Port(2, "sctp"), Port(3, "sctp")]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    assert parse_port(text) == ports


@pytest.mark.parametrize("text", ["", "0", "x", "80/icmp", "65536", "9-8", "80/", "-1", "1-2-3", "８０"])
def test_bad_ports(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_port(text)
    assert caught.value.message == f'invalid port specification: "{text}"' or "８０" in text


def test_bindings_ranges_and_publish_all() -> None:
    spec = bindings_to_spec(
        {
            "80/tcp": [PortBinding(HostIp="127.0.0.1", HostPort="8080"), PortBinding(HostPort="9000-9010")],
            "53/udp": None,
        },
        ["80/tcp", "443", "53/udp"],
        publish_all=True,
    )
    shown = [(b.container_port, b.protocol, b.host_ip, b.host_port, b.host_port_end) for b in spec]
    assert shown == [
        (80, "tcp", "127.0.0.1", 8080, 0),
        (80, "tcp", "", 9000, 9010),
        (53, "udp", "", 0, 0),
        (443, "tcp", "", 0, 0),
    ]


def test_bad_host_address_and_too_many() -> None:
    with pytest.raises(BadRequest, match=r"^invalid IP address in port binding: 'nowhere'"):
        bindings_to_spec({"80": [PortBinding(HostIp="nowhere")]}, [], publish_all=False)
    with pytest.raises(BadRequest, match="too many"):
        bindings_to_spec({f"1-{MAX_PORTS}": None, "5000-5010": None}, [], publish_all=False)


def test_what_is_shown() -> None:
    published = [
        pb.PortBinding(container_port=80, protocol="tcp", assigned_port=32768),
        pb.PortBinding(
            container_port=81, protocol="tcp", host_ip="127.0.0.1", host_port=81, assigned_port=81
        ),
    ]
    assert port_map(published, ["443/tcp", "80/tcp"], ipv6=True) == {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}],
        "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "81"}],
    }
    assert port_summaries(published, ["443/tcp", "80/tcp"], ipv6=False) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 32768, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 81, "PublicPort": 81, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]


@given(st.text(max_size=30) | st.from_regex(r"[0-9/tcpud-]{1,12}", fullmatch=True))
def test_no_text_is_our_fault(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert all(1 <= port.number <= 65535 for port in parse_port(text))
    with contextlib.suppress(BadRequest):
        start, end = parse_port_range(text)
        assert 0 <= start <= end <= 65535
