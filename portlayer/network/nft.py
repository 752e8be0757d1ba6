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

from collections.abc import Iterable

from portlayer.network.nftsets import bridge_sets, change, inet_sets
from portlayer.network.ruleset import Bridge, Ruleset

__all__ = ["render", "render_change", "render_removal", "table_name"]

FLOWS_EACH = 16384  # connections through the host that one guest may have; the host's table has 262,144
QUESTIONS_EACH = 500  # a second that one guest may ask the DNS server by UDP; a burst may be twice that


def table_name(vch: str) -> str:
    return f"mooring_{vch}"


def render_removal(vch: str) -> str:
    """Remove both tables whether they exist or not."""
    name = table_name(vch)
    return "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family in ("inet", "bridge"))


def render(rules: Ruleset) -> str:
    """The whole, whatever was there."""
    return render_removal(rules.vch) + _inet(rules) + _bridge(rules)


def render_change(before: Ruleset, after: Ruleset) -> str:
    """From ``before``, which is in the kernel, to ``after``: elements only while the bridges stay the same.
    "" when nothing changes."""
    if before.bridges != after.bridges:
        return render(after)
    table = table_name(after.vch)
    return "".join(
        change(f"{family} {table}", old, new)
        for family, sets in (("inet", inet_sets), ("bridge", bridge_sets))
        for old, new in zip(sets(before), sets(after), strict=True)
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _inet(rules: Ruleset) -> str:
    sets = "".join(one.definition() for one in inet_sets(rules))
    fixed = _INET_CHAINS
    for word, number in (
        ("FLOWS_EACH", FLOWS_EACH),
        ("RATE", QUESTIONS_EACH),
        ("BURST", 2 * QUESTIONS_EACH),
    ):
        fixed = fixed.replace(word, str(number))
    fixed = fixed.replace("HOST_ACCESS", _HOST_ACCESS if rules.host_access else "")
    chains = fixed + _prerouting(rules.bridges) + _postrouting(rules.bridges)
    return f"table inet {table_name(rules.vch)} {{\n{sets}{chains}}}\n"


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
HOST_ACCESS\
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
"""


_HOST_ACCESS = """\
    iifname != @internal iifname . ip daddr @gateways4 accept
    iifname != @internal iifname . ip6 daddr @gateways6 accept
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
    sets = "".join(one.definition() for one in bridge_sets(rules))
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
