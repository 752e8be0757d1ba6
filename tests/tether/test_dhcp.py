"""The DHCP client's states, with a server made of bytes and a clock made of numbers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.dhcp import Client, Lease, State, ip_packet, udp_payload

MAC = bytes.fromhex("020000000001")
ADDRESS, SERVER, ROUTER = bytes([10, 0, 0, 7]), bytes([10, 0, 0, 1]), bytes([10, 0, 0, 254])
OFFER, ACK, NAK = 2, 5, 6
DISCOVER, REQUEST = 1, 3


def client() -> Client:
    made = Client(mac=MAC, hostname="box", transaction=41)
    made.start(0.0)
    return made


def sent(made: Client) -> list[tuple[int, dict[int, bytes]]]:
    """What it wants sent, taken: (type, options)."""
    found = []
    for packet in made.outgoing:
        assert packet[:4] == b"\1\1\6\0" and packet[28:34] == MAC and len(packet) >= 300
        found.append(options_of(packet))
    made.outgoing.clear()
    return [(options[53][0], options) for options in found]


def options_of(packet: bytes) -> dict[int, bytes]:
    options, at = {}, 240
    while packet[at] != 255:
        options[packet[at]] = packet[at + 2 : at + 2 + packet[at + 1]]
        at += 2 + packet[at + 1]
    return options


def answer(kind: int, *, transaction: int = 42, mac: bytes = MAC, address: bytes = ADDRESS, lease: int = 1000,
           **extra: bytes) -> bytes:  # fmt: skip
    packet = struct.pack("!BBBBIHH4s4s4s4s16s", 2, 1, 6, 0, transaction, 0, 0, bytes(4), address, bytes(4),
                         bytes(4), mac.ljust(16, b"\0")).ljust(236, b"\0") + b"\x63\x82\x53\x63"  # fmt: skip
    options = {53: bytes([kind]), 54: SERVER, 51: struct.pack("!I", lease), 1: b"\xff\xff\xff\0", 3: ROUTER}
    options |= {int(name[1:]): value for name, value in extra.items()}
    for number, value in options.items():
        packet += bytes([number, len(value)]) + value
    return packet + b"\xff"


def bound(**extra: bytes) -> Client:
    made = client()
    made.received(answer(OFFER), 0.1)
    assert made.received(answer(ACK, **extra), 0.2)
    made.outgoing.clear()
    return made


def test_a_lease_is_asked_for_and_taken() -> None:
    made = client()
    assert [kind for kind, _ in sent(made)] == [DISCOVER]
    assert not made.received(answer(OFFER), 0.1)
    ((kind, options),) = sent(made)
    assert (kind, options[50], options[54], options[12]) == (REQUEST, ADDRESS, SERVER, b"box")
    assert made.received(answer(ACK, o6=SERVER + ROUTER, o15=b"lan.test", o26=b"\x05\x78"), 0.2)
    assert made.lease == Lease(ADDRESS, 24, ROUTER, (SERVER, ROUTER), "lan.test", 1400, SERVER, 1000)
    assert made.state is State.BOUND
    assert made.deadline == pytest.approx(500.2)


def test_silence_is_met_by_asking_again_ever_more_slowly() -> None:
    made = client()
    waits, now = [], 0.0
    for _ in range(7):
        assert made.deadline is not None
        waits.append(made.deadline - now)
        now = made.deadline
        made.tick(now)
    assert waits == [1, 2, 4, 8, 16, 16, 16]
    assert {kind for kind, _ in sent(made)} == {DISCOVER}


def test_a_server_that_falls_silent_after_its_offer_is_left() -> None:
    made = client()
    made.received(answer(OFFER), 0.1)
    for _ in range(6):
        assert made.deadline is not None
        made.tick(made.deadline)
    assert made.state is State.SELECTING


def test_a_tick_before_the_deadline_does_nothing() -> None:
    made = client()
    made.outgoing.clear()
    assert not made.tick(0.5)
    assert made.outgoing == []


def test_renewal_keeps_the_lease_quietly() -> None:
    made = bound()
    assert not made.tick(500.3)
    assert made.state is State.RENEWING
    ((kind, options),) = sent(made)
    assert (kind, 50 in options, 54 in options) == (REQUEST, False, False)
    assert not made.received(answer(ACK), 501.0), "the same lease is no news"
    assert (made.state, made.deadline) == (State.BOUND, 1001.0)


def test_another_address_at_renewal_is_news() -> None:
    made = bound()
    made.tick(500.3)
    assert made.received(answer(ACK, address=bytes([10, 0, 0, 8])), 501.0)


def test_a_silent_server_is_followed_by_any_server_and_then_by_loss() -> None:
    made = bound()
    now, states = 500.3, []
    while not made.tick(now):
        states.append(made.state)
        assert made.deadline is not None
        now = made.deadline
    assert states[0] is State.RENEWING
    assert states[-1] is State.REBINDING
    assert now == pytest.approx(1000.2)
    assert made.lease is None
    assert made.state is State.SELECTING


def test_a_refusal_begins_anew() -> None:
    made = bound()
    made.tick(500.3)
    assert made.received(answer(NAK), 501.0), "losing a lease is news"
    assert (made.lease, made.state) == (None, State.SELECTING)


@pytest.mark.parametrize(
    "packet",
    [
        answer(OFFER, transaction=7),
        answer(OFFER, mac=b"\2" + bytes(5)),
        answer(OFFER, address=bytes(4)),
        answer(OFFER, o54=b""),
        answer(ACK),
        answer(OFFER)[:200],
        answer(OFFER).replace(b"\x63\x82\x53\x63", bytes(4)),
        answer(OFFER)[:-3],
        b"",
    ],
)
def test_what_is_not_for_us_changes_nothing(packet: bytes) -> None:
    made = client()
    made.outgoing.clear()
    assert not made.received(packet, 0.1)
    assert (made.state, made.outgoing) == (State.SELECTING, [])


def test_an_infinite_lease_is_not_renewed() -> None:
    made = client()
    made.received(answer(OFFER), 0.1)
    made.received(answer(ACK, lease=0xFFFFFFFF), 0.2)
    assert made.deadline is None


def test_a_tiny_lease_does_not_make_us_flood() -> None:
    made = client()
    made.received(answer(OFFER), 0.1)
    made.received(answer(ACK, lease=0), 0.2)
    assert made.lease is not None and made.lease.seconds == 60


def test_hostile_text_does_not_get_into_resolv_conf() -> None:
    lease = bound(o15=b"lan.test\nnameserver 6.6.6.6").lease
    assert lease is not None and lease.domain == ""


@given(st.binary(max_size=400))
def test_no_packet_makes_it_fail(packet: bytes) -> None:
    made = client()
    made.received(packet, 0.1)
    made.received(answer(OFFER)[:240] + packet, 0.2)
    udp_payload(packet)


def test_ip_and_udp_are_put_around_and_taken_off() -> None:
    packet = ip_packet(b"payload")
    assert (packet[9], packet[16:20], packet[20:24]) == (17, b"\xff" * 4, struct.pack("!HH", 68, 67))
    for data in (
        packet[:20],
        bytes(4) + b"\xff" * 4 + struct.pack("!BBH", 0, 17, len(packet) - 20) + packet[20:],
    ):
        total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
        assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE)
    back = bytearray(packet)
    back[20:24] = struct.pack("!HH", 67, 68)
    assert udp_payload(bytes(back)) == b"payload"
    assert udp_payload(packet) is None, "not to the client's port"
    back[6:8] = b"\0\1"
    assert udp_payload(bytes(back)) is None, "a fragment"
