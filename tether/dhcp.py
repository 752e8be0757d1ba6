"""A DHCP client (RFC 2131) as a state machine: packets and time in, packets and leases out. No I/O.

For mapped networks, where addresses come from somebody else's server. Enough
for a lease, its renewal and its loss; no options but those a container uses.

    INIT → SELECTING (DISCOVER sent) → REQUESTING (REQUEST sent) → BOUND
    BOUND → RENEWING at T1 (asks its server) → REBINDING at T2 (asks anybody) → INIT when it expires

Unanswered packets are repeated after 1, 2, 4, 8, 16, 16 … seconds.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

__all__ = ["Client", "Lease", "State", "ip_packet", "udp_payload"]

SERVER_PORT, CLIENT_PORT = 67, 68
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK = 1, 2, 3, 5, 6
_COOKIE = b"\x63\x82\x53\x63"
_FIXED = 236  # bytes before the cookie
_MIN_PACKET = 300  # what some relays insist on
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s")
# option numbers (RFC 2132)
_MASK, _ROUTER, _DNS, _HOSTNAME, _DOMAIN, _MTU = 1, 3, 6, 12, 15, 26
_ADDRESS, _LEASE, _TYPE, _SERVER, _WANTED, _RENEWAL, _REBINDING, _END = 50, 51, 53, 54, 55, 58, 59, 255
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 16.0
_INFINITE = 0xFFFFFFFF


class State(enum.Enum):
    INIT = "init"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


class Lease(NamedTuple):
    address: bytes
    prefix: int
    router: bytes  # b"": none
    servers: tuple[bytes, ...]  # DNS
    domain: str
    mtu: int  # 0: not said
    server: bytes
    seconds: int


class Client:
    """One interface's client. After every call send `outgoing`, and call `tick` at `deadline`."""

    def __init__(self, *, mac: bytes, hostname: str, transaction: int) -> None:
        self._mac = mac
        self._hostname = hostname
        self._transaction = transaction
        self._offer: tuple[bytes, bytes] | None = None  # address, server
        self._wait = _FIRST_WAIT
        self._t1 = self._t2 = self._end = 0.0
        self.state = State.INIT
        self.lease: Lease | None = None
        self.deadline: float | None = None
        self.outgoing: list[bytes] = []  # BOOTP packets, to be broadcast

    def start(self, now: float) -> None:
        """Begin anew: whatever was leased is forgotten."""
        self.lease = None
        self._offer = None
        self._wait = _FIRST_WAIT
        self._transaction = (self._transaction + 1) & 0xFFFFFFFF
        self.state = State.SELECTING
        self._send(_DISCOVER, now)

    def tick(self, now: float) -> bool:
        """Time has passed; True when the lease has just been lost."""
        if self.deadline is None or now < self.deadline:
            return False
        if self.state in (State.SELECTING, State.REQUESTING):
            # An unanswered request: the server may be gone, so ask everybody again.
            if self.state is State.REQUESTING and self._wait >= _LONGEST_WAIT:
                self.start(now)
                return False
            self._send(_DISCOVER if self.state is State.SELECTING else _REQUEST, now)
            return False
        if now >= self._end:
            self.start(now)
            return True
        if self.state is State.BOUND:
            self._wait = _FIRST_WAIT
        self.state = State.REBINDING if now >= self._t2 else State.RENEWING
        self._send(_REQUEST, now)
        assert self.deadline is not None
        self.deadline = min(self.deadline, self._t2 if self.state is State.RENEWING else self._end)
        return False

    def received(self, packet: bytes, now: float) -> bool:
        """A BOOTP packet came; True when there is a lease that was not there, or another one."""
        parsed = _parse(packet)
        if parsed is None:
            return False
        transaction, mac, yours, options = parsed
        if transaction != self._transaction or mac != self._mac:
            return False
        kind = options.get(_TYPE, b"\0")[0]
        server = options.get(_SERVER, b"")
        if kind == _OFFER and self.state is State.SELECTING and any(yours) and len(server) == 4:
            self._offer = (yours, server)
            self.state = State.REQUESTING
            self._wait = _FIRST_WAIT
            self._send(_REQUEST, now)
            return False
        if self.state not in (State.REQUESTING, State.RENEWING, State.REBINDING):
            return False
        if kind == _NAK:
            had = self.lease is not None
            self.start(now)
            return had
        if kind != _ACK or not any(yours):
            return False
        old, self.lease = self.lease, _lease(yours, options)
        self.state = State.BOUND
        seconds = self.lease.seconds
        self._t1 = now + _seconds(options, _RENEWAL, seconds // 2, seconds)
        self._t2 = now + _seconds(options, _REBINDING, seconds * 7 // 8, seconds)
        self._end = now + seconds
        self.deadline = None if seconds == _INFINITE else self._t1
        return old is None or old._replace(seconds=0, server=b"") != self.lease._replace(
            seconds=0, server=b""
        )

    def _send(self, kind: int, now: float) -> None:
        self.outgoing.append(self._packet(kind))
        self.deadline = now + self._wait
        self._wait = min(self._wait * 2, _LONGEST_WAIT)

    def _packet(self, kind: int) -> bytes:
        current = self.lease.address if self.lease else bytes(4)
        # No broadcast flag: our socket hears unicast to our hardware address before there is an address.
        head = _HEADER.pack(
            1,
            1,
            6,
            0,
            self._transaction,
            0,
            0,
            current,
            bytes(4),
            bytes(4),
            bytes(4),
            self._mac.ljust(16, b"\0"),
        )
        options = _option(_TYPE, bytes([kind]))
        if kind == _REQUEST and self.lease is None and self._offer is not None:
            options += _option(_ADDRESS, self._offer[0]) + _option(_SERVER, self._offer[1])
        if self._hostname:
            options += _option(_HOSTNAME, self._hostname.encode()[:64])
        options += _option(
            _WANTED, bytes([_MASK, _ROUTER, _DNS, _DOMAIN, _MTU, _LEASE, _RENEWAL, _REBINDING])
        )
        packet = head.ljust(_FIXED, b"\0") + _COOKIE + options + bytes([_END])
        return packet.ljust(_MIN_PACKET, b"\0")


# ---------------------------------------------------------------- parsing


def _option(number: int, value: bytes) -> bytes:
    return bytes([number, len(value)]) + value


def _parse(packet: bytes) -> tuple[int, bytes, bytes, dict[int, bytes]] | None:
    """(transaction, hardware address, your address, options) of a reply; None when it is none."""
    if len(packet) < _FIXED + len(_COOKIE) or packet[0] != 2 or packet[_FIXED : _FIXED + 4] != _COOKIE:
        return None
    transaction = int.from_bytes(packet[4:8], "big")
    options: dict[int, bytes] = {}
    position = _FIXED + len(_COOKIE)
    while position < len(packet) and packet[position] != _END:
        if packet[position] == 0:
            position += 1
            continue
        if position + 2 > len(packet):
            return None
        number, length = packet[position], packet[position + 1]
        value = packet[position + 2 : position + 2 + length]
        if len(value) < length:
            return None
        options[number] = options.get(number, b"") + value  # long options come in parts (RFC 3396)
        position += 2 + length
    if not options.get(_TYPE):
        return None
    return transaction, packet[28:34], packet[16:20], options


def _lease(address: bytes, options: dict[int, bytes]) -> Lease:
    mask = options.get(_MASK, b"")
    prefix = bin(int.from_bytes(mask, "big")).count("1") if len(mask) == 4 else 24
    dns = options.get(_DNS, b"")
    router = options.get(_ROUTER, b"")[:4]
    mtu = int.from_bytes(options.get(_MTU, b""), "big")
    domain = options.get(_DOMAIN, b"").decode("ascii", "replace").strip("\0 ")
    return Lease(
        address=address,
        prefix=prefix,
        router=router if len(router) == 4 else b"",
        servers=tuple(dns[start : start + 4] for start in range(0, len(dns) - 3, 4))[:3],
        domain=domain if domain.replace(".", "").replace("-", "").isalnum() else "",
        mtu=mtu if 576 <= mtu <= 65535 else 0,
        server=options.get(_SERVER, b""),
        seconds=max(_seconds(options, _LEASE, 3600, _INFINITE), 60),
    )


def _seconds(options: dict[int, bytes], number: int, default: int, most: int) -> int:
    value = options.get(number, b"")
    return min(int.from_bytes(value, "big"), most) if len(value) == 4 else default


# ---------------------------------------------------------------- IP and UDP around it


def ip_packet(payload: bytes, *, source: bytes = bytes(4), destination: bytes = b"\xff" * 4) -> bytes:
    """The payload as UDP from the client's port to the server's, for a packet socket."""
    udp_length = 8 + len(payload)
    udp = struct.pack("!HHHH", CLIENT_PORT, SERVER_PORT, udp_length, 0)
    pseudo = source + destination + struct.pack("!BBH", 0, 17, udp_length)
    checksum = _checksum(pseudo + udp + payload) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", checksum)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + udp_length, 0, 0, 64, 17, 0, source, destination)
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return head + udp + payload


def udp_payload(packet: bytes) -> bytes | None:
    """The payload of an IP packet that is UDP to the client's port; None for all others."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != 17:
        return None
    header = (packet[0] & 15) * 4
    if header < 20 or len(packet) < header + 8 or int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    source, destination, length = struct.unpack_from("!HHH", packet, header)
    if source != SERVER_PORT or destination != CLIENT_PORT or length < 8:
        return None
    return packet[header + 8 : header + length]


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
