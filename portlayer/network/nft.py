"""The packet rules of one VCH, as one nftables transaction.

Pure: :class:`Ruleset` in, the text for ``nft -f -`` out. The whole of a VCH is
two tables named ``mooring_<vch>``, replaced in one transaction: there is no
moment without rules and no rule that nobody remembers. Rules are few and
fixed; what changes with containers are the elements of sets and maps, so a
packet costs the same with one container or a thousand.

``bridge`` table, per tap, before anything else sees a frame (a guest is
hostile): only its own MAC, its own addresses in IP, ARP and neighbour
advertisements; no router advertisements or redirects; no other protocols.

``inet`` table:

* *isolation by construction*: towards a bridge goes only what comes from the
  same bridge, what belongs to an accepted connection, and what was published.
  A second VCH's table says the same of its own bridges.
* internal networks have no way out and are published nowhere;
* guests reach nothing of the host but DNS and ping on their own gateway
  address, no guest can flood the DNS server, nor fill the host's table of
  connections;
* published ports are DNAT in ``prerouting`` (from outside and from guests,
  through any address of the host) and in ``output`` (from the host itself,
  127.0.0.1 included: that one is masqueraded, and needs ``route_localnet`` on
  the bridge, hence the guard against guests that send to 127.0.0.0/8). IPv6 has
  no ``route_localnet``: ::1 is refused at once, and clients try 127.0.0.1;
* hairpin: a guest that reaches its own network through a published port is
  masqueraded, else the answer would go back directly and be refused.

The accepts end our own chain only. Another table of the host (iptables'
FORWARD policy DROP as Docker or ufw set it) can still drop: see coexist.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Bridge", "Guest", "Published", "Ruleset", "render", "render_removal", "table_name"]

FLOWS_EACH = 16384  # connections through the host that one guest may have; the host's table has 262,144
QUESTIONS_EACH = 500  # a second that one guest may ask the DNS server by UDP; a burst may be twice that


@dataclass(frozen=True, kw_only=True)
class Bridge:
    interface: str
    subnet4: str = ""  # CIDR; "" = no IPv4
    gateway4: str = ""
    subnet6: str = ""
    gateway6: str = ""
    internal: bool = False
    icc: bool = True  # may its containers talk to each other?
    dns_port: int = 53  # where our server listens
    masquerade: bool = True


@dataclass(frozen=True, kw_only=True)
class Guest:
    tap: str
    mac: str
    ipv4: str = ""
    ipv6: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published port. ``address`` "" means every address of the host."""

    protocol: str
    address: str
    port: int
    container_port: int
    ipv4: str = ""  # target; "" = not reachable by this family
    ipv6: str = ""


@dataclass(frozen=True, kw_only=True)
class Ruleset:
    vch: str
    bridges: tuple[Bridge, ...] = ()
    guests: tuple[Guest, ...] = ()
    published: tuple[Published, ...] = ()


def table_name(vch: str) -> str:
    return f"mooring_{vch}"


def render_removal(vch: str) -> str:
    """Remove both tables whether they exist or not."""
    name = table_name(vch)
    return "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family in ("inet", "bridge"))


def render(rules: Ruleset) -> str:
    return render_removal(rules.vch) + _inet(rules) + _bridge(rules)


def _set(name: str, kind: str, elements: Iterable[str], *, word: str = "set", by: str = "type") -> str:
    text = ",\n      ".join(sorted(elements))
    body = f"\n    elements = {{\n      {text} }}" if text else ""
    return f"  {word} {name} {{\n    {by} {kind}{body}\n  }}\n"


def _map(name: str, kind: str, elements: dict[str, str]) -> str:
    return _set(name, kind, (f"{key} : {value}" for key, value in elements.items()), word="map")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _inet(rules: Ruleset) -> str:
    bridges = rules.bridges
    gateways4 = {f"{_quoted(b.interface)} . {b.gateway4}" for b in bridges if b.gateway4}
    gateways6 = {f"{_quoted(b.interface)} . {b.gateway6}" for b in bridges if b.gateway6}
    dns4 = {f"{_quoted(b.interface)} . {b.gateway4} . {b.dns_port}" for b in bridges if b.gateway4}
    dns6 = {f"{_quoted(b.interface)} . {b.gateway6} . {b.dns_port}" for b in bridges if b.gateway6}
    everywhere4, everywhere6, host4, host6 = _publications(rules.published)
    sets = (
        _set("bridges", "ifname", (_quoted(b.interface) for b in bridges))
        + _set("internal", "ifname", (_quoted(b.interface) for b in bridges if b.internal))
        + _set(
            "talkative",
            "ifname . ifname",
            (f"{_quoted(b.interface)} . {_quoted(b.interface)}" for b in bridges if b.icc),
        )
        + _set("gateways4", "ifname . ipv4_addr", gateways4)
        + _set("gateways6", "ifname . ipv6_addr", gateways6)
        + _set("dns4", "ifname . ipv4_addr . inet_service", dns4)
        + _set("dns6", "ifname . ipv6_addr . inet_service", dns6)
        + _map("everywhere4", "inet_proto . inet_service : ipv4_addr . inet_service", everywhere4)
        + _map("everywhere6", "inet_proto . inet_service : ipv6_addr . inet_service", everywhere6)
        + _map("host4", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", host4)
        + _map("host6", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service", host6)
    )
    fixed = _INET_CHAINS
    for word, number in (
        ("FLOWS_EACH", FLOWS_EACH),
        ("RATE", QUESTIONS_EACH),
        ("BURST", 2 * QUESTIONS_EACH),
    ):
        fixed = fixed.replace(word, str(number))
    chains = fixed + _prerouting(bridges) + _postrouting(bridges)
    return f"table inet {table_name(rules.vch)} {{\n{sets}{chains}}}\n"


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


_INET_CHAINS = """\
  chain published {
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @host4
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @everywhere4
    meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @everywhere6
  }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }
  chain output {
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    goto published
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @bridges goto decide
    oifname @bridges goto decide
  }
  set flows4 {
    type ifname . ipv4_addr; size 65535; flags dynamic
  }
  set flows6 {
    type ifname . ipv6_addr; size 65535; flags dynamic
  }
  chain decide {
    ct state established,related accept
    iifname @bridges ct state new add @flows4 { iifname . ip saddr ct count over FLOWS_EACH } drop
    iifname @bridges ct state new add @flows6 { iifname . ip6 saddr ct count over FLOWS_EACH } drop
    iifname . oifname @talkative accept
    iifname @internal drop
    oifname @bridges ct status dnat accept
    oifname @bridges drop
    accept
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @bridges goto services
  }
  set askers4 {
    type ifname . ipv4_addr; size 65535; flags dynamic; timeout 1m
  }
  set askers6 {
    type ifname . ipv6_addr; size 65535; flags dynamic; timeout 1m
  }
  chain services {
    udp dport != 0 iifname . ip daddr . th dport @dns4 \
      update @askers4 { iifname . ip saddr limit rate over RATE/second burst BURST packets } drop
    udp dport != 0 iifname . ip6 daddr . th dport @dns6 \
      update @askers6 { iifname . ip6 saddr limit rate over RATE/second burst BURST packets } drop
    ct state established,related accept
    meta l4proto { tcp, udp } iifname . ip daddr . th dport @dns4 accept
    meta l4proto { tcp, udp } iifname . ip6 daddr . th dport @dns6 accept
    iifname . ip daddr @gateways4 icmp type echo-request accept
    iifname . ip6 daddr @gateways6 icmpv6 type echo-request accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
"""


def _prerouting(bridges: Iterable[Bridge]) -> str:
    lines = ["type nat hook prerouting priority dstnat; policy accept;"]
    for bridge in bridges:
        if bridge.dns_port == 53:
            continue
        name, port = _quoted(bridge.interface), bridge.dns_port
        for protocol in ("udp", "tcp"):
            if bridge.gateway4:
                match = f"iifname {name} ip daddr {bridge.gateway4} {protocol} dport 53"
                lines.append(f"{match} dnat ip to {bridge.gateway4}:{port}")
            if bridge.gateway6:
                match = f"iifname {name} ip6 daddr {bridge.gateway6} {protocol} dport 53"
                lines.append(f"{match} dnat ip6 to [{bridge.gateway6}]:{port}")
    lines += ["iifname @internal return", "ip daddr 127.0.0.0/8 return", "goto published"]
    return "  chain prerouting {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _postrouting(bridges: Iterable[Bridge]) -> str:
    lines = [
        "type nat hook postrouting priority srcnat; policy accept;",
        "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
    ]
    for bridge in bridges:
        name = _quoted(bridge.interface)
        for family, subnet in (("ip", bridge.subnet4), ("ip6", bridge.subnet6)):
            if not subnet:
                continue
            lines.append(f"oifname {name} {family} saddr {subnet} ct status dnat masquerade")
            if bridge.masquerade and not bridge.internal:
                lines.append(f"oifname != {name} {family} saddr {subnet} masquerade")
    return "  chain postrouting {\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _bridge(rules: Ruleset) -> str:
    guests = rules.guests
    addresses6 = {
        (guest.tap, address)
        for guest in guests
        if guest.ipv6
        for address in (ipaddress.IPv6Address(guest.ipv6), _link_local(guest.mac))
    }
    sets = (
        _set("taps", "ifname", (_quoted(g.tap) for g in guests))
        + _set("macs", "ifname . ether_addr", (f"{_quoted(g.tap)} . {g.mac}" for g in guests))
        + _set("addresses4", "ifname . ipv4_addr", (f"{_quoted(g.tap)} . {g.ipv4}" for g in guests if g.ipv4))
        + _set(
            "addresses6",
            "ifname . ipv6_addr",
            (f"{_quoted(tap)} . {address}" for tap, address in addresses6),
        )
        # nft 1.0.6 has no name for the target field of neighbour messages: 16 bytes at offset 8.
        + _set(
            "targets6",
            "iifname . @th,64,128",
            (f"{_quoted(tap)} . 0x{int(address):032x}" for tap, address in addresses6),
            by="typeof",
        )
        + _set(
            "mirrored",
            "ifname . ifname . ether_addr",
            (f"{_quoted(g.tap)} . {_quoted(g.tap)} . {g.mac}" for g in guests),
        )
        + _set("mirrors", "ifname . ifname", (f"{_quoted(g.tap)} . {_quoted(g.tap)}" for g in guests))
    )
    return f"table bridge {table_name(rules.vch)} {{\n{sets}{_BRIDGE_CHAINS}}}\n"


# Senders without an address yet: ARP probes, duplicate address detection (of their own address only).
# The forward chain: taps are in hairpin mode, because with br_netfilter a guest's packet to its own published
# port is turned round inside the bridge. Nothing else may come back to its sender (a guest that hears its own
# neighbour solicitation thinks that its address is taken).
_BRIDGE_CHAINS = """\
  chain prerouting {
    type filter hook prerouting priority -310; policy accept;
    iifname @taps goto guest
  }
  chain guest {
    iifname . ether saddr != @macs drop
    ether type arp goto guest_arp
    ether type ip goto guest_ip
    ether type ip6 goto guest_ip6
    drop
  }
  chain guest_arp {
    iifname . arp saddr ether != @macs drop
    arp saddr ip 0.0.0.0 accept
    iifname . arp saddr ip @addresses4 accept
    drop
  }
  chain guest_ip {
    iifname . ip saddr @addresses4 accept
    drop
  }
  chain guest_ip6 {
    icmpv6 type { nd-router-advert, nd-redirect } drop
    icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop
    ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept
    ip6 saddr :: icmpv6 type mld2-listener-report accept
    iifname . ip6 saddr @addresses6 accept
    drop
  }
  chain forward {
    type filter hook forward priority -310; policy accept;
    iifname . oifname . ether daddr @mirrored accept
    iifname . oifname @mirrors drop
  }
"""


def _link_local(mac: str) -> ipaddress.IPv6Address:
    """The address every kernel gives an interface with this MAC (EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    )
