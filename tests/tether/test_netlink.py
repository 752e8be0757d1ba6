"""Netlink messages, byte by byte, and a real loopback in a namespace of its own."""

from __future__ import annotations

import struct

import pytest

from tether.netlink import (
    AF_INET,
    AF_INET6,
    Address,
    RouteEntry,
    address_body,
    attribute,
    attributes,
    format_address,
    link_body,
    message,
    messages,
    parse_cidr,
    route_body,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3/16", Address(AF_INET, bytes([10, 1, 2, 3]), 16)),
        ("10.1.2.3", Address(AF_INET, bytes([10, 1, 2, 3]), 32)),
        ("0.0.0.0/0", Address(AF_INET, bytes(4), 0)),
        ("fd00::1/64", Address(AF_INET6, b"\xfd" + bytes(14) + b"\1", 64)),
        ("::/0", Address(AF_INET6, bytes(16), 0)),
    ],
)
def test_addresses_are_read_and_shown(text: str, expected: Address) -> None:
    assert parse_cidr(text) == expected
    assert parse_cidr(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "10.0.0.300", "10.0.0.1/33", "10.0.0.1/x", "10.0.0.1/-1", "fd00::/129", "1.2.3"]
)
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text!r}"):
        parse_cidr(text)


def test_attributes_are_padded_and_read_back() -> None:
    data = attribute(3, b"eth0\0") + attribute(4, b"\1\2\3\4") + attribute(0x8005, b"")
    assert len(data) == 12 + 8 + 4
    assert attributes(data) == {3: b"eth0\0", 4: b"\1\2\3\4", 5: b""}


@pytest.mark.parametrize("damaged", [b"\x01", b"\x03\x00\x01\x00", b"\xff\x00\x01\x00"])
def test_a_damaged_tail_is_left_out(damaged: bytes) -> None:
    assert attributes(attribute(1, b"good") + damaged) == {1: b"good"}


def test_messages_of_one_read_are_split() -> None:
    data = message(2, 0, 7, b"abc") + b"\0" + message(3, 0, 8, b"")
    assert list(messages(data)) == [(2, 7, b"abc"), (3, 8, b"")]
    assert list(messages(data[:18])) == []


def test_a_link_is_named_sized_and_brought_up() -> None:
    body = link_body(5, up=True, name="eth0", mtu=1400)
    assert struct.unpack_from("=BxHiII", body) == (0, 0, 5, 1, 1)
    assert attributes(body[16:]) == {3: b"eth0\0", 4: struct.pack("=I", 1400)}
    assert struct.unpack_from("=BxHiII", link_body(5, up=False)) == (0, 0, 5, 0, 1)
    assert struct.unpack_from("=BxHiII", link_body(5, mtu=9000)) == (0, 0, 5, 0, 0), "up or down as it is"


def test_a_v4_address_has_its_broadcast_and_a_v6_one_no_duplicate_detection() -> None:
    body = address_body(5, parse_cidr("10.9.0.2/24"))
    assert struct.unpack_from("=BBBBI", body) == (AF_INET, 24, 0, 0, 5)
    assert format_address(attributes(body[8:])[4]) == "10.9.0.255"
    assert 4 not in attributes(address_body(5, parse_cidr("10.9.0.2/31"))[8:])
    body = address_body(5, parse_cidr("fd00::2/64"))
    assert struct.unpack_from("=BBBBI", body) == (AF_INET6, 64, 2, 0, 5)
    assert 4 not in attributes(body[8:])


def test_routes_are_ours_and_have_the_scope_of_what_they_reach() -> None:
    via = route_body(5, RouteEntry(parse_cidr("0.0.0.0/0"), bytes([10, 9, 0, 1])))
    assert struct.unpack_from("=BBBBBBBBI", via) == (AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
    assert attributes(via[12:]) == {5: bytes([10, 9, 0, 1]), 4: struct.pack("=I", 5)}
    on_link = route_body(5, RouteEntry(parse_cidr("10.8.0.0/16"), b""))
    assert struct.unpack_from("=BBBBBBBBI", on_link)[6] == 253
    assert attributes(on_link[12:])[1] == bytes([10, 8, 0, 0])
