import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from portlayer.network.nft import render, render_change, render_removal
from portlayer.network.ruleset import Bridge, Guest, Published, Ruleset

GOLDEN = Path(__file__).with_name("golden.nft")

RULES = Ruleset(
    vch="a" * 32,
    bridges=(
        Bridge(
            interface="mrfront",
            subnet4="172.30.0.0/24",
            gateway4="172.30.0.1",
            subnet6="fd00:1::/64",
            gateway6="fd00:1::1",
            dns_port=1053,
        ),
        Bridge(interface="mrback", subnet4="172.30.1.0/24", gateway4="172.30.1.1", internal=True),
        Bridge(
            interface="mrquiet", subnet4="172.30.2.0/24", gateway4="172.30.2.1", icc=False, masquerade=False
        ),
    ),
    guests=(
        Guest(tap="mt1", mac="02:42:ac:1e:00:02", ipv4="172.30.0.2", ipv6="fd00:1::2"),
        Guest(tap="mt2", mac="02:42:ac:1e:01:02", ipv4="172.30.1.2"),
    ),
    published=(
        Published(
            protocol="tcp", address="", port=8080, container_port=80, ipv4="172.30.0.2", ipv6="fd00:1::2"
        ),
        Published(protocol="udp", address="127.0.0.1", port=53, container_port=5353, ipv4="172.30.0.2"),
        Published(
            protocol="tcp", address="::1", port=1, container_port=2, ipv4="172.30.0.2", ipv6="fd00:1::2"
        ),
        Published(
            protocol="tcp", address="0.0.0.0", port=3, container_port=4, ipv4="172.30.0.2", ipv6="fd00:1::2"
        ),
        Published(
            protocol="sctp", address="::", port=5, container_port=6, ipv4="172.30.0.2", ipv6="fd00:1::2"
        ),
    ),
)


def elements(text: str, name: str) -> list[str]:
    """The elements of one set or map."""
    body = text.split(f" {name} {{", 1)[1].split("\n  }", 1)[0]
    if "elements" not in body:
        return []
    inside = body.split("elements = {", 1)[1].rsplit("}", 1)[0]
    return [element.strip() for element in inside.split(",\n")]


def test_golden() -> None:
    """Read the difference, then copy: the rules are a security boundary."""
    assert render(RULES) == GOLDEN.read_text()


def test_rendering_does_not_depend_on_order() -> None:
    shuffled = Ruleset(
        vch=RULES.vch, bridges=RULES.bridges, guests=RULES.guests[::-1], published=RULES.published[::-1]
    )
    assert render(shuffled) == render(RULES)


def test_each_family_gets_its_publications() -> None:
    text = render(RULES)
    assert elements(text, "everywhere4") == [
        "tcp . 3 : 172.30.0.2 . 4",
        "tcp . 8080 : 172.30.0.2 . 80",
    ]
    assert elements(text, "everywhere6") == ["sctp . 5 : fd00:1::2 . 6", "tcp . 8080 : fd00:1::2 . 80"]
    assert elements(text, "host4") == ["127.0.0.1 . udp . 53 : 172.30.0.2 . 5353"]
    assert elements(text, "host6") == ["::1 . tcp . 1 : fd00:1::2 . 2"]


def test_a_dns_server_on_another_port_is_reached_on_53() -> None:
    text = render(RULES)
    for line in (
        'iifname "mrfront" ip daddr 172.30.0.1 udp dport 53 dnat ip to 172.30.0.1:1053',
        'iifname "mrfront" ip6 daddr fd00:1::1 tcp dport 53 dnat ip6 to [fd00:1::1]:1053',
    ):
        assert text.index(line) < text.index("iifname @internal return")
    assert elements(text, "dns4") == [
        '"mrback" . 172.30.1.1 . 53',
        '"mrfront" . 172.30.0.1 . 1053',
        '"mrquiet" . 172.30.2.1 . 53',
    ]


def test_internal_networks_are_not_masqueraded_and_quiet_ones_not_talkative() -> None:
    text = render(RULES)
    assert 'oifname != "mrfront" ip saddr 172.30.0.0/24 masquerade' in text
    assert 'oifname != "mrfront" ip6 saddr fd00:1::/64 masquerade' in text
    assert 'oifname != "mrback"' not in text
    assert 'oifname != "mrquiet"' not in text
    assert elements(text, "internal") == ['"mrback"']
    assert elements(text, "talkative") == ['"mrback" . "mrback"', '"mrfront" . "mrfront"']


def test_a_guest_may_use_its_own_addresses_and_its_link_local_one() -> None:
    text = render(RULES)
    assert elements(text, "addresses4") == ['"mt1" . 172.30.0.2', '"mt2" . 172.30.1.2']
    assert elements(text, "addresses6") == ['"mt1" . fd00:1::2', '"mt1" . fe80::42:acff:fe1e:2']
    assert elements(text, "targets6") == [
        '"mt1" . 0xfd000001000000000000000000000002',
        '"mt1" . 0xfe800000000000000042acfffe1e0002',
    ]


def test_the_host_is_open_only_where_it_shall_be() -> None:
    line = "iifname != @internal iifname . ip daddr @gateways4 accept"
    assert line not in render(RULES)
    assert line in render(dataclasses.replace(RULES, host_access=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="nft needs root even to check")
@pytest.mark.parametrize("rules", [RULES, Ruleset(vch="b" * 32)], ids=["full", "empty"])
def test_nft_accepts_it(rules: Ruleset) -> None:
    for text in (render(rules), render_removal(rules.vch)):
        done = subprocess.run(
            ["nft", "-c", "-f", "-"], input=text, text=True, capture_output=True, check=False
        )
        assert done.stderr == ""
        assert done.returncode == 0


def changed(before: tuple[Published, ...], after: tuple[Published, ...]) -> list[str]:
    first = Ruleset(vch="a" * 32, published=before)
    return render_change(first, Ruleset(vch="a" * 32, published=after)).splitlines()


def test_a_change_is_the_elements_that_differ_removals_first() -> None:
    one = Published(protocol="tcp", address="", port=1, container_port=80, ipv4="10.0.0.2")
    moved = Published(protocol="tcp", address="", port=1, container_port=80, ipv4="10.0.0.3")
    other = Published(protocol="udp", address="10.9.9.9", port=2, container_port=53, ipv4="10.0.0.2")
    table = f"inet mooring_{'a' * 32}"
    assert changed((one,), (one,)) == []
    assert changed((one,), (moved, other)) == [
        f"delete element {table} everywhere4 {{ tcp . 1 }}",
        f"add element {table} everywhere4 {{ tcp . 1 : 10.0.0.3 . 80 }}",
        f"add element {table} host4 {{ 10.9.9.9 . udp . 2 : 10.0.0.2 . 53 }}",
    ]


def test_other_bridges_are_everything_anew() -> None:
    after = Ruleset(vch=RULES.vch, bridges=RULES.bridges[:1], guests=RULES.guests)
    assert render_change(RULES, after) == render(after)
