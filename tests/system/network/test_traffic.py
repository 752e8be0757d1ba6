"""Real packets through real taps, bridges and rules."""

import asyncio

import pytest

from portlayer.errors import PortLayerError
from portlayer.network import nft
from portlayer.portlayer_pb2 import Endpoint, PortBinding, Reason
from tests.system.network.lab import HOST4, HOST6, OUTSIDE4, OUTSIDE6, Guest, Lab, Vch

pytestmark = pytest.mark.system

LOST = ("timeout", "unreachable 113")  # no answer, not even from a neighbour


def tcp(port: int, container_port: int = 80, host_ip: str = "") -> PortBinding:
    return PortBinding(container_port=container_port, protocol="tcp", host_port=port, host_ip=host_ip)


def bridge_netfilter(lab: Lab, on: bool) -> None:
    for key in ("iptables", "ip6tables"):
        lab.host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{key}={int(on)}")


async def test_containers_of_one_network_reach_each_other_by_name(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    web, client = await tenant.container("web", "front"), await tenant.container("client", "front")
    web.serve(80)
    assert await client.resolve(client.nameserver, "web") == [tenant.address("web")]
    assert await client.resolve(client.nameserver, "web", "AAAA") == [tenant.address("web", 6)]
    assert await client.ask(tenant.address("web"), 80) == f"{web.name} sees {tenant.address('client')}"
    assert await client.ask(tenant.address("web", 6), 80) == f"{web.name} sees {tenant.address('client', 6)}"


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "br_netfilter"])
async def test_a_published_port_is_reached_from_everywhere(lab: Lab, tenant: Vch, filtered: bool) -> None:
    bridge_netfilter(lab, filtered)
    await tenant.network("front", ipv6=True)
    await tenant.network("back")
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    neighbour, stranger = (
        await tenant.container("neighbour", "front"),
        await tenant.container("stranger", "back"),
    )
    web.serve(80)
    endpoint = tenant.attachments["web"].endpoints[0]
    gateway, gateway6 = endpoint.gateway_ipv4, endpoint.gateway_ipv6
    assert await lab.outside.ask(HOST4, 8080) == f"{web.name} sees {OUTSIDE4}"
    assert await lab.outside.ask(HOST6, 8080) == f"{web.name} sees {OUTSIDE6}"
    assert await lab.host.ask("127.0.0.1", 8080) == f"{web.name} sees {gateway}"
    assert (await lab.host.ask(HOST4, 8080)).startswith(f"{web.name} sees ")
    assert (await lab.host.ask(HOST6, 8080)).startswith(f"{web.name} sees ")
    assert await neighbour.ask(HOST4, 8080) == f"{web.name} sees {gateway}"
    assert await neighbour.ask(HOST6, 8080) == f"{web.name} sees {gateway6}"
    assert await web.ask(HOST4, 8080) == f"{web.name} sees {gateway}"
    assert await web.ask(HOST6, 8080) == f"{web.name} sees {gateway6}"
    assert await web.ask(gateway, 8080) == f"{web.name} sees {gateway}"
    assert (await stranger.ask(HOST4, 8080)).startswith(f"{web.name} sees ")
    assert await lab.host.ask("::1", 8080) == "refused"


async def test_udp_is_published_too(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front")
    echo = await tenant.container(
        "echo", "front", ports=[PortBinding(container_port=7, protocol="udp", host_port=7007)]
    )
    echo.serve(7, udp=True)
    assert await lab.outside.ask(HOST4, 7007, udp=True) == f"{echo.name} sees {OUTSIDE4}"
    assert (await lab.host.ask("127.0.0.1", 7007, udp=True)).startswith(f"{echo.name} sees ")
    assert (await echo.ask(HOST4, 7007, udp=True)).startswith(f"{echo.name} sees ")


async def test_a_udp_client_that_was_there_before_the_container_is_served(lab: Lab, tenant: Vch) -> None:
    """The kernel remembers that its flow went to the host: that must be forgotten, at stop too."""
    client = lab.outside.start(
        """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5555)); s.settimeout(0.2)
print("ready", flush=True)
while True:
    s.sendto(b"hello", (sys.argv[1], 7007))
    try:
        print(s.recv(100).decode(), flush=True)
    except OSError:
        pass
""",
        HOST4,
    )
    await tenant.network("front")
    binding = PortBinding(container_port=7, protocol="udp", host_port=7007)
    assert client.stdout is not None
    for name in ("one", "two"):
        echo = await tenant.container(name, "front", ports=[binding])
        echo.serve(7, udp=True, text=name)
        async with asyncio.timeout(20):
            while not (await asyncio.to_thread(client.stdout.readline)).startswith(f"{name} sees"):
                pass
        await tenant.stop(name)


async def test_a_port_on_one_address_is_on_that_address_only(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    web = await tenant.container(
        "web",
        "front",
        ports=[
            tcp(8080, host_ip="127.0.0.1"),
            tcp(8081, host_ip=HOST4),
            tcp(8082, host_ip=HOST6),
            tcp(8083, host_ip="0.0.0.0"),
            tcp(8084, host_ip="::"),
        ],
    )
    web.serve(80)
    assert (await lab.host.ask("127.0.0.1", 8080)).startswith(web.name)
    assert await lab.outside.ask(HOST4, 8080) == "refused"
    assert await web.ask(HOST4, 8080) == "refused"
    assert (await lab.outside.ask(HOST4, 8081)).startswith(web.name)
    assert await lab.host.ask("127.0.0.1", 8081) == "refused"
    assert (await lab.outside.ask(HOST6, 8082)).startswith(web.name)
    assert await lab.outside.ask(HOST4, 8082) == "refused"
    assert (await lab.outside.ask(HOST4, 8083)).startswith(web.name)
    assert await lab.outside.ask(HOST6, 8083) == "refused"
    assert (await lab.outside.ask(HOST6, 8084)).startswith(web.name)
    assert await lab.outside.ask(HOST4, 8084) == "refused"


async def test_host_binding_option_is_the_default_address(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", bridge__host_binding_ipv4="127.0.0.1")
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    assert tenant.attachments["web"].ports[0].host_ip == "127.0.0.1"
    web.serve(80)
    assert (await lab.host.ask("127.0.0.1", 8080)).startswith(web.name)
    assert await lab.outside.ask(HOST4, 8080) == "refused"


async def test_a_neighbour_machine_cannot_reach_what_is_published_on_loopback(lab: Lab, tenant: Vch) -> None:
    """It could send frames with a loopback destination to the host's MAC address."""
    await tenant.network("front")
    web = await tenant.container("web", "front", ports=[tcp(8080, host_ip="127.0.0.1")])
    web.serve(80)
    lab.outside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    lab.outside.run("ip", "route", "del", "local", "127.0.0.0/8", "table", "local", check=False)
    lab.outside.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    lab.outside.run("ip", "route", "add", "127.0.0.1", "via", HOST4, "src", OUTSIDE4)
    assert await lab.outside.ask("127.0.0.1", 8080, timeout=1) == "timeout"


async def test_unpublished_ports_are_not_reached_from_outside(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    web.serve(80)
    web.serve(81)
    lab.outside.run("ip", "route", "add", "172.30.0.0/16", "via", HOST4)
    lab.outside.run("ip", "route", "add", "fd00::/8", "via", HOST6)
    for port in (80, 81):
        assert await lab.outside.ask(tenant.address("web"), port, timeout=1) == "timeout"
        assert await lab.outside.ask(tenant.address("web", 6), port, timeout=1) == "timeout"
    assert (await lab.host.ask(tenant.address("web"), 81)).startswith(web.name)


async def test_egress_is_masqueraded(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    client = await tenant.container("client", "front")
    lab.outside.serve(80)
    assert await client.ask(OUTSIDE4, 80) == f"{lab.outside.name} sees {HOST4}"
    assert await client.ask(OUTSIDE6, 80) == f"{lab.outside.name} sees {HOST6}"


async def test_egress_without_masquerade(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", bridge__enable_ip_masquerade="false")
    client = await tenant.container("client", "front")
    lab.outside.serve(80)
    lab.outside.run("ip", "route", "add", "172.30.0.0/16", "via", HOST4)
    assert await client.ask(OUTSIDE4, 80) == f"{lab.outside.name} sees {tenant.address('client')}"


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "br_netfilter"])
async def test_networks_are_isolated(lab: Lab, tenant: Vch, filtered: bool) -> None:
    bridge_netfilter(lab, filtered)
    await tenant.network("front", ipv6=True)
    await tenant.network("back", ipv6=True)
    web, stranger = await tenant.container("web", "front"), await tenant.container("stranger", "back")
    web.serve(80)
    for version in (4, 6):
        assert await stranger.ask(tenant.address("web", version), 80, timeout=1) == "timeout"
    # Neither the other network's gateway, nor its names.
    gateway = tenant.attachments["web"].endpoints[0].gateway_ipv4
    assert await stranger.resolve(stranger.nameserver, "web") == ["NXDOMAIN"]
    assert await stranger.resolve(gateway, "web", "A", "+time=1") in (["TIMEOUT"], ["REFUSED"])


async def test_internal_networks_have_no_way_out(lab: Lab, tenant: Vch) -> None:
    await tenant.network("inside", internal=True, ipv6=True)
    await tenant.network("front", ipv6=True)
    a, b = await tenant.container("a", "inside"), await tenant.container("b", "inside")
    web = await tenant.container("web", "front", ports=[tcp(8080)])
    for server in (a, web, lab.outside):
        server.serve(80)
    assert (await b.ask(tenant.address("a"), 80)).startswith(a.name)
    assert await b.resolve(b.nameserver, "a") == [tenant.address("a")]
    lab.outside.run("ip", "route", "add", "172.30.0.0/16", "via", HOST4)  # answers would come back
    lab.outside.run("ip", "route", "add", "fd00::/8", "via", HOST6)
    # A hostile guest adds its own default route.
    for gateway in (b.nameserver, tenant.gateway("inside", 6)):
        b.run("ip", "route", "add", "default", "via", gateway)
    for target, port in (
        (OUTSIDE4, 80),
        (OUTSIDE6, 80),
        (HOST4, 8080),
        (HOST6, 8080),
        (tenant.address("web"), 80),
        (tenant.address("web", 6), 80),
    ):
        assert await b.ask(target, port, timeout=1) == ("refused" if port == 8080 else "timeout")


async def test_the_host_s_services_are_out_of_reach(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    client = await tenant.container("client", "front")
    lab.host.serve(22)
    lab.host.serve(22, udp=True)
    assert (await lab.host.ask("127.0.0.1", 22)).startswith(lab.host.name)
    for address in (tenant.gateway("front"), tenant.gateway("front", 6), HOST4, HOST6):
        assert await client.ask(address, 22) in ("refused", "unreachable 13")
        assert (await client.ask(address, 22, udp=True)).split()[0] in ("unreachable", "refused")


async def test_the_host_s_services_answer_where_the_vch_allows_it(lab: Lab) -> None:
    tenant = await lab.vch(host_access=True).open()
    await tenant.network("front", ipv6=True)
    await tenant.network("inside", internal=True)
    client, shut = await tenant.container("client", "front"), await tenant.container("shut", "inside")
    lab.host.serve(22)
    for address in (tenant.gateway("front"), tenant.gateway("front", 6)):
        assert (await client.ask(address, 22)).startswith(lab.host.name)
    assert await client.ask(HOST4, 22) in ("refused", "unreachable 13"), "the gateway's address only"
    assert await shut.ask(tenant.gateway("inside"), 22) in ("refused", "unreachable 13")
    await tenant.manager.close()


async def test_a_guest_that_aims_at_the_host_s_loopback_is_stopped(lab: Lab, tenant: Vch) -> None:
    """Published ports on 127.0.0.1 need route_localnet on the bridge: that must not open the host."""
    await tenant.network("front")
    guest = await tenant.container("guest", "front")
    lab.host.serve(22)
    guest.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    guest.run("ip", "route", "del", "local", "127.0.0.0/8", "table", "local", check=False)
    guest.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    guest.run(
        "ip", "route", "add", "127.0.0.1", "via", tenant.gateway("front"), "src", tenant.address("guest")
    )
    assert await guest.ask("127.0.0.1", 22, timeout=1) == "timeout"


async def test_a_guest_cannot_fill_the_host_s_table_of_connections(
    lab: Lab, tenant: Vch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "FLOWS_EACH", 100)
    await tenant.network("front", ipv6=True)
    guest, other = await tenant.container("guest", "front"), await tenant.container("other", "front")
    lab.outside.serve(80)
    for address in (OUTSIDE4, OUTSIDE6):
        assert (await guest.ask(address, 80)).startswith(lab.outside.name)
        await asyncio.to_thread(guest.python, _SCATTER, address)
        assert await guest.ask(address, 80, timeout=1) == "timeout"
        assert (await other.ask(address, 80)).startswith(lab.outside.name)
    count = int(lab.host.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
    assert 200 <= count < 300


_SCATTER = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
for port in range(1000, 1400):
    s.sendto(b"x", (sys.argv[1], port))
    time.sleep(0.001)
"""


async def test_the_gateway_answers_pings(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    guest = await tenant.container("guest", "front")
    for address in (tenant.gateway("front"), tenant.gateway("front", 6)):
        assert await asyncio.to_thread(guest.python, _PING, address) == "answer\n"


_PING = """
import socket, sys
six = ":" in sys.argv[1]
s = socket.socket(*((socket.AF_INET6, socket.SOCK_RAW, 58) if six else (socket.AF_INET, socket.SOCK_RAW, 1)))
s.settimeout(10)
s.connect((sys.argv[1], 0))
s.send(b"\\x80\\0\\0\\0\\0\\1\\0\\1" if six else b"\\x08\\0\\xf7\\xfd\\0\\1\\0\\1")
while True:
    data = s.recv(100)
    if data[0 if six else 20] == (129 if six else 0):
        print("answer")
        break
"""


async def spoof(guest: Guest, address: str, *, mac: str = "") -> None:
    if mac:
        guest.run("ip", "link", "set", "eth0", "address", mac)
    length = "64" if ":" in address else "24"
    guest.run(
        "ip", "addr", "add", f"{address}/{length}", "dev", "eth0", *(["nodad"] if ":" in address else [])
    )


async def test_a_guest_cannot_use_another_address_or_mac(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front", ipv6=True)
    web, thief = await tenant.container("web", "front"), await tenant.container("thief", "front")
    victim = await tenant.container("victim", "front")
    web.serve(80)
    assert (await victim.ask(tenant.address("web"), 80)).startswith(web.name)
    unused = str(tenant.address("web")).rsplit(".", 1)[0] + ".77"
    for address, version in (
        (unused, 4),
        (tenant.address("victim"), 4),
        (tenant.gateway("front"), 4),
        (tenant.address("victim", 6), 6),
        (tenant.gateway("front", 6), 6),
    ):
        await spoof(thief, address)
        assert (await thief.ask(tenant.address("web", version), 80, source=address, timeout=1)) in LOST
        length = "64" if version == 6 else "24"
        thief.run("ip", "addr", "del", f"{address}/{length}", "dev", "eth0")
    assert (await thief.ask(tenant.address("web"), 80)).startswith(web.name)
    thief.run("ip", "link", "set", "eth0", "address", "02:42:ac:1e:99:99")
    assert (await thief.ask(tenant.address("web"), 80, timeout=1)) in LOST


async def test_a_guest_cannot_poison_its_neighbours_caches(lab: Lab, tenant: Vch) -> None:
    """Gratuitous ARP and unsolicited neighbour advertisements for the gateway's address get nowhere."""
    await tenant.network("front", ipv6=True)
    thief, victim = await tenant.container("thief", "front"), await tenant.container("victim", "front")
    gateway, gateway6 = tenant.gateway("front"), tenant.gateway("front", 6)
    assert await victim.ask(gateway, 99) == "refused"
    assert await victim.ask(gateway6, 99) == "refused"
    assert await thief.ask(tenant.address("victim"), 99) == "refused"
    before = victim.neighbours()
    thief.python(
        _POISON,
        gateway,
        gateway6,
        tenant.attachments["thief"].endpoints[0].assigned_mac,
        tenant.address("thief"),
        tenant.address("thief", 6),
    )
    assert await thief.ask(tenant.address("victim"), 99) == "refused"  # the wire keeps order: all has arrived
    assert victim.neighbours() == before
    assert before[gateway] == before[gateway6] != tenant.attachments["thief"].endpoints[0].assigned_mac


_POISON = """
import socket, struct, sys
gateway4, gateway6, mac, own4, own6 = sys.argv[1:]
mac = bytes.fromhex(mac.replace(":", ""))
pack4 = lambda a: socket.inet_pton(socket.AF_INET, a)
pack6 = lambda a: socket.inet_pton(socket.AF_INET6, a)
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
all_ones = b"\\xff" * 6
for target in (pack4(gateway4),):
    for op in (1, 2):
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, op) + mac + target + all_ones + target
        raw.send(all_ones + mac + b"\\x08\\x06" + arp)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
everyone = pack6("ff02::1")
for source in (pack6(own6), pack6(gateway6)):
    for kind in (136, 134):
        if kind == 136:
            body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + pack6(gateway6) + b"\\x02\\x01" + mac
        else:  # a router advertisement with ourselves as the default router
            body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\\x01\\x01" + mac
        pseudo = source + everyone + struct.pack("!II", len(body), 58)
        body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
        header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + everyone
        raw.send(bytes.fromhex("333300000001") + mac + b"\\x86\\xdd" + header + body)
"""


async def test_duplicate_address_detection_of_a_guest_is_not_disturbed(lab: Lab, tenant: Vch) -> None:
    """Taps are in hairpin mode; a guest must not hear its own solicitations, nor others' false ones."""
    await tenant.network("front", ipv6=True)
    guest, thief = await tenant.container("guest", "front"), await tenant.container("thief", "front")
    address = f"{tenant.address('guest', 6)}/64"
    thief.run("ip", "addr", "add", address, "dev", "eth0")  # its own detection asks for the same address
    guest.run("ip", "addr", "del", address, "dev", "eth0")
    guest.run("ip", "addr", "add", address, "dev", "eth0")
    async with asyncio.timeout(10):
        while "tentative" in (state := guest.run("ip", "-6", "addr", "show", "dev", "eth0")):
            await asyncio.sleep(0.1)
    assert "dadfailed" not in state


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "br_netfilter"])
async def test_without_icc_neighbours_do_not_meet(lab: Lab, tenant: Vch, filtered: bool) -> None:
    bridge_netfilter(lab, filtered)
    await tenant.network("quiet", bridge__enable_icc="false")
    web, other = (
        await tenant.container("web", "quiet", ports=[tcp(8080)]),
        await tenant.container("other", "quiet"),
    )
    web.serve(80)
    lab.outside.serve(80)
    assert (await other.ask(tenant.address("web"), 80, timeout=1)).split()[0] in ("timeout", "unreachable")
    assert (await other.ask(OUTSIDE4, 80)).startswith(lab.outside.name)
    assert (await lab.outside.ask(HOST4, 8080)).startswith(web.name)
    # A hostile guest sends the neighbour's packets to the host's MAC address.
    other.run("ip", "route", "add", tenant.address("web"), "via", tenant.gateway("quiet"))
    assert (await other.ask(tenant.address("web"), 80, timeout=1)).split()[0] in ("timeout", "unreachable")


async def test_docker_s_drop_policy_and_ufw_s_are_survived(lab: Lab, tenant: Vch) -> None:
    """With br_netfilter the policy would even eat frames between two taps of one bridge."""
    bridge_netfilter(lab, True)
    for tool in ("iptables", "ip6tables"):
        lab.host.run(tool, "-P", "FORWARD", "DROP")
        lab.host.run(tool, "-P", "INPUT", "DROP")
        lab.host.run(tool, "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT")
        lab.host.run(tool, "-N", "DOCKER-USER")
        lab.host.run(tool, "-A", "DOCKER-USER", "-j", "RETURN")
        lab.host.run(tool, "-A", "FORWARD", "-j", "DOCKER-USER")
    network = await tenant.network("front", ipv6=True)
    web, client = (
        await tenant.container("web", "front", ports=[tcp(8080)]),
        await tenant.container("client", "front"),
    )
    web.serve(80)
    lab.outside.serve(80)
    assert (await client.ask(tenant.address("web"), 80)).startswith(web.name)
    assert (await client.ask(OUTSIDE4, 80)).startswith(lab.outside.name)
    assert (await client.ask(HOST4, 8080)).startswith(web.name)
    assert (await lab.outside.ask(HOST4, 8080)).startswith(web.name)
    assert await client.resolve(client.nameserver, "web") == [tenant.address("web")]
    for name in ("web", "client"):
        await tenant.stop(name)
    await tenant.manager.remove(network.id)
    assert network.bridge not in lab.host.run("iptables", "-S") + lab.host.run("ip6tables", "-S")


async def test_two_vchs_do_not_see_each_other(lab: Lab, tenant: Vch) -> None:
    other = await lab.vch().open()
    await tenant.network("front")
    await other.network("front")
    mine, theirs = (
        await tenant.container("web", "front", ports=[tcp(8080)]),
        await other.container("web", "front"),
    )
    mine.serve(80)
    theirs.serve(80)
    assert tenant.address("web") != other.address("web")
    assert await theirs.ask(tenant.address("web"), 80, timeout=1) == "timeout"
    assert await mine.ask(other.address("web"), 80, timeout=1) == "timeout"
    assert await theirs.resolve(theirs.nameserver, "web") == [other.address("web")]
    assert (await theirs.ask(HOST4, 8080)).startswith(mine.name)  # what is published is public
    with pytest.raises(PortLayerError) as caught:
        other.manager.reserve_ports("x" * 64, [tcp(8080)])
    assert caught.value.reason == Reason.PORT_IN_USE
    await other.manager.close()
    await other.remove()
    assert (await lab.host.ask(tenant.address("web"), 80)).startswith(mine.name)
    assert (await lab.outside.ask(HOST4, 8080)).startswith(mine.name)


async def test_connect_and_disconnect_while_running(lab: Lab, tenant: Vch) -> None:
    await tenant.network("front")
    back = await tenant.network("back")
    web, client = await tenant.container("web", "front"), await tenant.container("client", "back")
    web.serve(80)
    await tenant.connect("web", Endpoint(network=back.id, aliases=["store"]))
    assert web.run("ip", "-br", "addr").count("172.30.") == 2
    assert await client.resolve(client.nameserver, "store") == [tenant.address("web", index=1)]
    assert (await client.ask(tenant.address("web", index=1), 80)).startswith(web.name)
    assert {e.name for e in tenant.manager.get(back.id).endpoints} == {"client", "web"}
    await tenant.disconnect("web", back.id)
    assert await client.resolve(client.nameserver, "store") == ["NXDOMAIN"]
    assert [e.name for e in tenant.manager.get(back.id).endpoints] == ["client"]
    await tenant.connect("web", Endpoint(network=back.id))
    assert (await client.ask(tenant.address("web", index=1), 80)).startswith(web.name)
