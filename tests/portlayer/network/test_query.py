import struct

import pytest
from dnslib import EDNS0, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from portlayer.network.query import BadQuery, parse_query


def question(name: str, kind: str = "A") -> DNSRecord:
    return DNSRecord.question(name, kind)


def test_what_a_stub_resolver_sends() -> None:
    packet = question("Web.Example", "AAAA")
    packet.add_ar(EDNS0(udp_len=4096, flags="do"))
    query = parse_query(packet.pack())
    assert (query.labels, query.name) == ((b"Web", b"Example"), "web.example")
    assert (query.type, query.cls, query.id) == (28, 1, packet.header.id)
    assert (query.edns, query.dnssec, query.udp_size, query.recursion) == (True, True, 1232, True)


def test_without_edns() -> None:
    query = parse_query(question("web").pack())
    assert (query.edns, query.dnssec, query.udp_size) == (False, False, 512)


@pytest.mark.parametrize(("offered", "used"), [(0, 512), (600, 600), (65535, 1232)])
def test_the_offered_size_is_bounded(offered: int, used: int) -> None:
    packet = question("web")
    packet.add_ar(EDNS0(udp_len=offered))
    assert parse_query(packet.pack()).udp_size == used


@pytest.mark.parametrize("packet", [b"", b"\0" * 11, struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0)])
def test_what_deserves_no_answer(packet: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        parse_query(packet)
    assert caught.value.id is None


def header(questions: int = 1, answers: int = 0, additional: int = 0, flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 7, flags, questions, answers, 0, additional)


@pytest.mark.parametrize(
    "packet",
    [
        header(questions=0),
        header(questions=2) + b"\0\0\1\0\1",
        header(answers=1) + b"\0\0\1\0\1",
        header(additional=3) + b"\0\0\1\0\1",
        header(),
        header() + b"\x03web",
        header() + b"\x03we",
        header() + b"\x03web\0\0\1",
        header() + b"\xc0\x0c\0\1\0\1",
        header() + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        header() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        header(additional=1) + b"\0\0\1\0\1" + b"\0\0\x29\x10\0\0\0\0\0\0\x09",
        header(additional=2) + b"\0\0\1\0\1" + b"\0\0\x29\x10\0\0\0\0\0\0\0" * 2,
    ],
)
def test_malformed_questions_are_told_so(packet: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        parse_query(packet)
    assert caught.value.id == 7


def test_other_opcodes_are_named() -> None:
    with pytest.raises(BadQuery) as caught:
        parse_query(header(flags=5 << 11))
    assert (caught.value.id, caught.value.opcode) == (7, 5)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_query_or_a_bad_query(packet: bytes) -> None:
    try:
        query = parse_query(packet)
    except BadQuery:
        return
    assert sum(len(label) + 1 for label in query.labels) <= 255


@given(st.binary(max_size=60))
def test_any_tail_of_a_good_header(tail: bytes) -> None:
    try:
        parse_query(header(additional=1) + tail)
    except BadQuery as problem:
        assert problem.id == 7
