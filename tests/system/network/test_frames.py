"""Which frames of a hostile guest reach a neighbour: each rule of the bridge table against raw frames."""

import asyncio
import socket
import struct

import pytest

from tests.system.network.lab import Lab, Vch

pytestmark = pytest.mark.system

EVERYBODY = b"\xff" * 6
OTHER_MAC = bytes.fromhex("020000000001")
ARP, IPV4, IPV6, VLAN, LLDP, STP = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88CC, 0x0026
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")


def ethernet(source: bytes, kind: int, body: bytes) -> bytes:
    return EVERYBODY + source + struct.pack("!H", kind) + body


def arp(operation: int, mac: bytes, sender: bytes, target: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac + sender + EVERYBODY + target


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp4(source: bytes) -> bytes:
    payload = struct.pack("!HHHH", 1000, 1000, 12, 0) + b"test"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 17, 0) + source + EVERYBODY[:4]
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(source: bytes, next_header: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 0x60000000, len(payload), next_header, 255) + source + ALL_NODES + payload


def icmp6(source: bytes, kind: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = source + ALL_NODES + struct.pack("!II", len(message), 58)
    return ip6(source, 58, message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:])


def advert(source: bytes, target: bytes) -> bytes:
    return icmp6(source, 136, struct.pack("!I", 0x20000000) + target + b"\x02\x01" + OTHER_MAC)


def solicit(source: bytes, target: bytes) -> bytes:
    return icmp6(source, 135, bytes(4) + target)


async def test_only_what_is_the_guest_s_own_leaves_it(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    thief, neighbour = await tenant.container("thief", "front"), await tenant.container("neighbour", "front")
    endpoint = tenant.attachments["thief"].endpoints[0]
    mac = bytes.fromhex(endpoint.assigned_mac.replace(":", ""))
    mine, others, gateway = (
        socket.inet_aton(a)
        for a in (tenant.address("thief"), tenant.address("neighbour"), tenant.gateway("front"))
    )
    mine6, others6, gateway6 = (
        socket.inet_pton(socket.AF_INET6, a)
        for a in (tenant.address("thief", 6), tenant.address("neighbour", 6), tenant.gateway("front", 6))
    )
    local6 = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    stray6 = socket.inet_pton(socket.AF_INET6, "fe80::1")
    nobody6 = bytes(16)
    passes = {
        "ARP request": ethernet(mac, ARP, arp(1, mac, mine, others)),
        "ARP answer": ethernet(mac, ARP, arp(2, mac, mine, others)),
        "ARP probe": ethernet(mac, ARP, arp(1, mac, bytes(4), mine)),
        "IPv4": ethernet(mac, IPV4, udp4(mine)),
        "IPv6": ethernet(mac, IPV6, ip6(mine6, 59, b"")),
        "IPv6 from the link-local address": ethernet(mac, IPV6, ip6(local6, 59, b"")),
        "advert of its own address": ethernet(mac, IPV6, advert(mine6, mine6)),
        "advert of its link-local address": ethernet(mac, IPV6, advert(local6, local6)),
        "solicitation": ethernet(mac, IPV6, solicit(mine6, others6)),
        "duplicate detection": ethernet(mac, IPV6, solicit(nobody6, mine6)),
        "duplicate detection, link-local": ethernet(mac, IPV6, solicit(nobody6, local6)),
        "multicast report without an address yet": ethernet(mac, IPV6, icmp6(nobody6, 143, bytes(4))),
    }
    lost = {
        "ARP of another MAC": ethernet(mac, ARP, arp(1, OTHER_MAC, mine, others)),
        "ARP from another MAC": ethernet(OTHER_MAC, ARP, arp(1, mac, mine, others)),
        "ARP request as the gateway": ethernet(mac, ARP, arp(1, mac, gateway, others)),
        "ARP answer as the gateway": ethernet(mac, ARP, arp(2, mac, gateway, others)),
        "ARP answer as the neighbour": ethernet(mac, ARP, arp(2, mac, others, mine)),
        "IPv4 as the neighbour": ethernet(mac, IPV4, udp4(others)),
        "IPv4 as nobody": ethernet(mac, IPV4, udp4(bytes(4))),
        "IPv4 from another MAC": ethernet(OTHER_MAC, IPV4, udp4(mine)),
        "IPv6 as the gateway": ethernet(mac, IPV6, ip6(gateway6, 59, b"")),
        "IPv6 from another link-local address": ethernet(mac, IPV6, ip6(stray6, 59, b"")),
        "IPv6 as nobody": ethernet(mac, IPV6, ip6(nobody6, 59, b"")),
        "IPv6 from another MAC": ethernet(OTHER_MAC, IPV6, ip6(mine6, 59, b"")),
        "advert of the gateway": ethernet(mac, IPV6, advert(mine6, gateway6)),
        "advert of the gateway from link-local": ethernet(mac, IPV6, advert(local6, gateway6)),
        "advert of the neighbour": ethernet(mac, IPV6, advert(mine6, others6)),
        "duplicate detection of the neighbour's": ethernet(mac, IPV6, solicit(nobody6, others6)),
        "router advertisement": ethernet(mac, IPV6, icmp6(local6, 134, bytes(12))),
        "redirect": ethernet(mac, IPV6, icmp6(local6, 137, bytes(4) + gateway6 + others6)),
        "VLAN": ethernet(mac, VLAN, struct.pack("!HH", 5, IPV4) + udp4(mine)),
        "LLDP": ethernet(mac, LLDP, bytes(50)),
        "spanning tree": ethernet(mac, STP, b"\x42\x42\x03" + bytes(35)),
    }
    sniffer = neighbour.start(_SNIFF, mac.hex(), OTHER_MAC.hex())
    echo = thief.start(_SNIFF, mac.hex(), OTHER_MAC.hex())
    end = ethernet(mac, ARP, arp(1, mac, mine, gateway))
    echo_end = ethernet(OTHER_MAC, ARP, arp(2, OTHER_MAC, gateway, mine))
    frames = [frame.hex() for frame in (*lost.values(), *passes.values(), end)]
    await asyncio.to_thread(thief.python, _SEND, *frames)
    assert sniffer.stdout is not None and echo.stdout is not None
    seen = set()
    while (line := await asyncio.to_thread(sniffer.stdout.readline)) and bytes.fromhex(line) != end:
        seen.add(bytes.fromhex(line))
    assert {name for name, frame in lost.items() if frame in seen} == set()
    assert {name for name, frame in passes.items() if frame not in seen} == set()
    # Taps are in hairpin mode, yet nothing comes back to its sender: what the host sends next arrives alone.
    lab.host.start(_SEND_ONE, tenant.manager.get(tenant.network_id("front")).bridge, echo_end.hex())
    assert bytes.fromhex(await asyncio.to_thread(echo.stdout.readline)) == echo_end


_SNIFF = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("eth0", 3))
s.settimeout(30)  # then the end is lost, and whoever reads us sees it
print("ready", flush=True)
while True:
    frame, address = s.recvfrom(2000)
    if address[2] != socket.PACKET_OUTGOING and frame[6:12].hex() in sys.argv[1:]:
        print(frame.hex(), flush=True)
"""

_SEND_ONE = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
s.send(bytes.fromhex(sys.argv[2]))
print("ready", flush=True)
"""

_SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
"""
