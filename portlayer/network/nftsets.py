"""The sets and maps of the packet rules: all that changes when a container comes or goes. Pure.

A change of containers is a change of elements: the transaction that makes it
holds just these, so it costs the same beside one container or a thousand, and
what the kernel itself notes in the tables (flows per guest) stays.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from portlayer.network.ruleset import Published, Ruleset

__all__ = ["ElementSet", "bridge_sets", "change", "inet_sets"]


@dataclass(frozen=True, kw_only=True)
class ElementSet:
    """A set, or a map when its elements have values."""

    name: str
    kind: str
    elements: Mapping[str, str]  # key -> value; sets have ""
    is_map: bool = False
    by: str = "type"

    def definition(self) -> str:
        text = ",\n      ".join(sorted(_written(self.elements)))
        body = f"\n    elements = {{\n      {text} }}" if text else ""
        return f"  {'map' if self.is_map else 'set'} {self.name} {{\n    {self.by} {self.kind}{body}\n  }}\n"


def _written(elements: Mapping[str, str]) -> Iterator[str]:
    return (f"{key} : {value}" if value else key for key, value in elements.items())


def change(table: str, before: ElementSet, after: ElementSet) -> str:
    """nft commands that lead from one to the other; ``table`` with its family. Removals come first: a key
    may get another value."""
    gone = {key: "" for key, value in before.elements.items() if after.elements.get(key) != value}
    new = {key: value for key, value in after.elements.items() if before.elements.get(key) != value}
    commands = ""
    if gone:
        commands += f"delete element {table} {after.name} {{ {', '.join(_written(gone))} }}\n"
    if new:
        commands += f"add element {table} {after.name} {{ {', '.join(_written(new))} }}\n"
    return commands


def _set(name: str, kind: str, elements: Iterable[str], *, by: str = "type") -> ElementSet:
    return ElementSet(name=name, kind=kind, elements=dict.fromkeys(elements, ""), by=by)


def _map(name: str, kind: str, elements: dict[str, str]) -> ElementSet:
    return ElementSet(name=name, kind=kind, elements=elements, is_map=True)


def inet_sets(rules: Ruleset) -> list[ElementSet]:
    bridges = [(f'"{b.interface}"', b) for b in rules.bridges]
    everywhere4, everywhere6, host4, host6 = _publications(rules.published)
    return [
        _set("bridges", "ifname", (name for name, _ in bridges)),
        _set("internal", "ifname", (name for name, b in bridges if b.internal)),
        _set("talkative", "ifname . ifname", (f"{name} . {name}" for name, b in bridges if b.icc)),
        _set("gateways4", "ifname . ipv4_addr", (f"{n} . {b.gateway4}" for n, b in bridges if b.gateway4)),
        _set("gateways6", "ifname . ipv6_addr", (f"{n} . {b.gateway6}" for n, b in bridges if b.gateway6)),
        _set(
            "dns4",
            "ifname . ipv4_addr . inet_service",
            (f"{name} . {b.gateway4} . {b.dns_port}" for name, b in bridges if b.gateway4),
        ),
        _set(
            "dns6",
            "ifname . ipv6_addr . inet_service",
            (f"{name} . {b.gateway6} . {b.dns_port}" for name, b in bridges if b.gateway6),
        ),
        _map("everywhere4", "inet_proto . inet_service : ipv4_addr . inet_service", everywhere4),
        _map("everywhere6", "inet_proto . inet_service : ipv6_addr . inet_service", everywhere6),
        _map("host4", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", host4),
        _map("host6", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service", host6),
    ]


def _publications(
    published: Iterable[Published],
) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]:
    everywhere4: dict[str, str] = {}
    everywhere6: dict[str, str] = {}
    host4: dict[str, str] = {}
    host6: dict[str, str] = {}
    for port in published:
        key = f"{port.protocol} . {port.port}"
        version = ipaddress.ip_address(port.address).version if port.address else 0
        wild = not port.address or ipaddress.ip_address(port.address).is_unspecified
        if port.ipv4 and version in (0, 4):
            target = f"{port.ipv4} . {port.container_port}"
            (everywhere4 if wild else host4)[key if wild else f"{port.address} . {key}"] = target
        if port.ipv6 and version in (0, 6):
            target = f"{port.ipv6} . {port.container_port}"
            (everywhere6 if wild else host6)[key if wild else f"{port.address} . {key}"] = target
    return everywhere4, everywhere6, host4, host6


def bridge_sets(rules: Ruleset) -> list[ElementSet]:
    guests = [(f'"{g.tap}"', g) for g in rules.guests]
    addresses6 = [
        (tap, address)
        for tap, guest in guests
        if guest.ipv6
        for address in (ipaddress.IPv6Address(guest.ipv6), _link_local(guest.mac))
    ]
    return [
        _set("taps", "ifname", (tap for tap, _ in guests)),
        _set("macs", "ifname . ether_addr", (f"{tap} . {g.mac}" for tap, g in guests)),
        _set("addresses4", "ifname . ipv4_addr", (f"{tap} . {g.ipv4}" for tap, g in guests if g.ipv4)),
        _set("addresses6", "ifname . ipv6_addr", (f"{tap} . {address}" for tap, address in addresses6)),
        # nft 1.0.6 has no name for the target field of neighbour messages: 16 bytes at offset 8.
        _set(
            "targets6",
            "iifname . @th,64,128",
            (f"{tap} . 0x{int(address):032x}" for tap, address in addresses6),
            by="typeof",
        ),
        _set(
            "mirrored",
            "ifname . ifname . ether_addr",
            (f"{tap} . {tap} . {g.mac}" for tap, g in guests),
        ),
        _set("mirrors", "ifname . ifname", (f"{tap} . {tap}" for tap, _ in guests)),
    ]


def _link_local(mac: str) -> ipaddress.IPv6Address:
    """The address every kernel gives an interface with this MAC (EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    )
