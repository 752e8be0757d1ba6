"""What changes of the packet rules leave in the kernel."""

import random
from itertools import combinations

import pytest

from portlayer.network.firewall import Firewall
from portlayer.network.ruleset import Bridge, Guest, Published, Ruleset
from tests.system.network.lab import Lab

pytestmark = pytest.mark.system

BRIDGE = Bridge(
    interface="mr1", subnet4="10.0.0.0/24", gateway4="10.0.0.1", subnet6="fd00::/64", gateway6="fd00::1"
)
GUESTS = [
    Guest(tap=f"mt{n}", mac=f"02:00:00:00:00:{n:02x}", ipv4=f"10.0.0.{n}", ipv6=f"fd00::{n}")
    for n in (2, 3, 4)
]
PORTS = [
    Published(
        protocol=protocol, address=address, port=80, container_port=8000, ipv4=guest.ipv4, ipv6=guest.ipv6
    )
    for protocol in ("tcp", "udp", "sctp")
    for address in ("", "10.9.9.9", "fd09::9")
    for guest in GUESTS[:2]
]


async def test_many_small_changes_lead_to_what_one_large_one_does(lab: Lab) -> None:
    chance = random.Random(7)  # repeatable
    state = Ruleset(vch="a" * 32, bridges=(BRIDGE,))
    firewall = Firewall(lambda: state)
    await firewall.apply()
    guests = [subset for size in range(4) for subset in combinations(GUESTS, size)]
    for _ in range(60):
        ports = {(p.protocol, p.address): p for p in chance.sample(PORTS, chance.randrange(len(PORTS)))}
        state = Ruleset(
            vch="a" * 32, bridges=(BRIDGE,), guests=chance.choice(guests), published=tuple(ports.values())
        )
        await firewall.apply()
        changed = lab.rules()
        firewall.forget()
        await firewall.apply()
        assert changed == lab.rules()


async def test_a_change_of_what_somebody_else_has_emptied_is_everything_anew(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    state = Ruleset(vch="a" * 32, bridges=(BRIDGE,), guests=tuple(GUESTS))
    firewall = Firewall(lambda: state)
    await firewall.apply()
    lab.host.run("nft", "flush", "set", "bridge", f"mooring_{'a' * 32}", "taps")
    state = Ruleset(vch="a" * 32, bridges=(BRIDGE,), guests=tuple(GUESTS[:1]))
    await firewall.apply()
    assert "replacing all packet rules" in caplog.text
    changed = lab.rules()
    await Firewall(lambda: state).apply()
    assert lab.rules() == changed
