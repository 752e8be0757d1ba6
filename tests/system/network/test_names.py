"""The embedded DNS over real sockets: forwarding, truncation, silent servers, floods, links, rotation."""

import asyncio

import pytest

from portlayer.network import nft
from portlayer.portlayer_pb2 import Endpoint
from tests.system.network.lab import OUTSIDE4, Lab, Vch

pytestmark = pytest.mark.system

# Answers every name with its own address; "big" is truncated over UDP, "mute" gets no answer, "no" does not
# exist, "sick" is SERVFAIL. Its log says what was asked.
_UPSTREAM = """
import socket, socketserver, struct, sys, threading
from dnslib import A, QTYPE, RCODE, RR, TXT, DNSRecord
address, answer = sys.argv[1:]

def reply(data, tcp):
    question = DNSRecord.parse(data)
    name = str(question.q.qname)
    print("tcp" if tcp else "udp", name, file=sys.stderr, flush=True)
    response = question.reply()
    if name.startswith("mute"):
        return None
    if name.startswith("no."):
        response.header.rcode = RCODE.NXDOMAIN
    elif name.startswith("sick"):
        response.header.rcode = RCODE.SERVFAIL
    elif name.startswith("big"):
        if tcp:
            response.add_answer(*(RR(name, QTYPE.A, ttl=60, rdata=A(f"192.0.2.{n}")) for n in range(100)))
        else:
            response.header.tc = 1
    else:
        response.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A(answer)))
    return bytes(response.pack())

class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        (length,) = struct.unpack("!H", self.rfile.read(2))
        data = reply(self.rfile.read(length), True)
        self.wfile.write(struct.pack("!H", len(data)) + data)

class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        data = reply(self.request[0], False)
        if data is not None:
            self.request[1].sendto(data, self.client_address)

class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

udp = socketserver.ThreadingUDPServer((address, 53), Udp)
tcp = TcpServer((address, 53), Tcp)
threading.Thread(target=tcp.serve_forever, daemon=True).start()
print("ready", flush=True)
udp.serve_forever()
"""
SECOND4 = "198.51.100.3"


@pytest.fixture
def upstream(lab: Lab) -> str:
    lab.outside.start(_UPSTREAM, OUTSIDE4, "203.0.113.1")
    return OUTSIDE4


@pytest.fixture
def second(lab: Lab) -> str:
    lab.outside.run("ip", "addr", "add", f"{SECOND4}/24", "dev", "wan")
    lab.outside.start(_UPSTREAM, SECOND4, "203.0.113.2")
    return SECOND4


async def test_other_names_are_asked_at_the_host_s_servers(lab: Lab, tenant: Vch, upstream: str) -> None:
    tenant.resolv_conf.write_text(f"nameserver {upstream}\nsearch example.org\n")
    await tenant.network("front", ipv6=True)
    guest = await tenant.container("guest", "front")
    assert list(guest.resolver.search) == ["example.org"]
    for server in (guest.nameserver, tenant.gateway("front", 6)):
        assert await guest.resolve(server, "www.example.org") == ["203.0.113.1"]
        assert await guest.resolve(server, "www.example.org", "A", "+tcp") == ["203.0.113.1"]
    assert await guest.resolve(guest.nameserver, "no.example.org") == ["NXDOMAIN"]
    assert await guest.resolve(guest.nameserver, "guest", "MX") == ["NOERROR"]


async def test_a_truncated_answer_is_fetched_by_tcp(lab: Lab, tenant: Vch, upstream: str) -> None:
    tenant.resolv_conf.write_text(f"nameserver {upstream}\n")
    await tenant.network("front")
    guest = await tenant.container("guest", "front")
    assert len(await guest.resolve(guest.nameserver, "big.example.org")) == 100  # dig retries by TCP too
    assert len(await guest.resolve(guest.nameserver, "big.example.org", "A", "+tcp", "+noedns")) == 100
    assert await guest.resolve(guest.nameserver, "big2.example.org", "A", "+ignore") == ["NOERROR"]


async def test_a_silent_or_sick_server_is_passed_over(
    lab: Lab, tenant: Vch, upstream: str, second: str
) -> None:
    tenant.resolv_conf.write_text(f"nameserver 198.51.100.77\nnameserver {upstream}\nnameserver {second}\n")
    await tenant.network("front")
    guest = await tenant.container("guest", "front")
    assert await guest.resolve(guest.nameserver, "www.example.org") == ["203.0.113.1"]
    assert await guest.resolve(guest.nameserver, "sick.example.org") == ["SERVFAIL"]
    assert await guest.resolve(guest.nameserver, "mute.example.org", "A", "+time=15") == ["SERVFAIL"]


async def test_each_container_has_its_own_servers(lab: Lab, upstream: str, second: str) -> None:
    tenant = await lab.vch(dns=[upstream]).open()
    await tenant.network("front")
    plain = await tenant.container("plain", "front")
    own = await tenant.container("own", "front", dns=[second])
    for _ in range(2):
        assert await plain.resolve(plain.nameserver, "www.example.org") == ["203.0.113.1"]
        assert await own.resolve(own.nameserver, "www.example.org") == ["203.0.113.2"]
    assert await own.resolve(own.nameserver, "plain") == [tenant.address("plain")]
    await tenant.manager.close()


async def test_internal_networks_ask_nobody(lab: Lab, tenant: Vch, upstream: str) -> None:
    tenant.resolv_conf.write_text(f"nameserver {upstream}\n")
    await tenant.network("inside", internal=True)
    guest = await tenant.container("guest", "inside")
    assert await guest.resolve(guest.nameserver, "secret.example.org") == ["SERVFAIL"]
    assert await guest.resolve(guest.nameserver, "nobody") == ["NXDOMAIN"]
    assert await guest.resolve(guest.nameserver, "guest") == [tenant.address("guest")]


async def test_a_flood_of_one_guest_does_not_starve_the_others(lab: Lab, tenant: Vch, upstream: str) -> None:
    tenant.resolv_conf.write_text(f"nameserver {upstream}\n")
    await tenant.network("front")
    noisy, calm = await tenant.container("noisy", "front"), await tenant.container("calm", "front")
    noisy.start(
        """
import itertools, socket, sys
from dnslib import DNSRecord
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 53))
connections = [socket.create_connection((sys.argv[1], 53)) for _ in range(20)]
for n in range(300):
    s.send(bytes(DNSRecord.question(f"mute{n}.example.org").pack()))
print("ready", flush=True)
for n in itertools.count():
    s.send(bytes(DNSRecord.question(f"mute{n}.example.org").pack()))
    socket.setdefaulttimeout(0.002)
    try:
        s.recv(1000)
    except OSError:
        pass
""",
        noisy.nameserver,
    )
    for options in ((), ("+tcp",)):
        assert await calm.resolve(calm.nameserver, "www.example.org", "A", *options) == ["203.0.113.1"]
        assert await calm.resolve(calm.nameserver, "noisy", "A", *options) == [tenant.address("noisy")]


async def test_questions_are_limited_per_guest(tenant: Vch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "QUESTIONS_EACH", 5)
    await tenant.network("front", ipv6=True)
    noisy, calm = await tenant.container("noisy", "front"), await tenant.container("calm", "front")
    for server in (noisy.nameserver, tenant.gateway("front", 6)):
        answered = int(await asyncio.to_thread(noisy.python, _INSIST, server))
        assert 5 <= answered < 40
        assert await calm.resolve(server, "noisy") == [tenant.address("noisy")]


_INSIST = """
import socket, sys, time
from dnslib import DNSRecord
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 53))
for _ in range(100):
    s.send(bytes(DNSRecord.question("calm").pack()))
    time.sleep(0.005)
answered = 0
s.settimeout(1)
try:
    while True:
        s.recv(1000)
        answered += 1
except TimeoutError:
    print(answered)
"""


async def test_links_rotation_reverse_and_renaming(tenant: Vch) -> None:
    network = await tenant.network("front", ipv6=True)
    for name in ("one", "two"):
        await tenant.container(name, Endpoint(network=network.id, aliases=["db"]))
    target = tenant.attachments["one"].container
    linking = await tenant.container("linking", Endpoint(network=network.id, links=[f"{target}:store"]))
    other = await tenant.container("other", "front")
    server = linking.nameserver
    both = sorted([tenant.address("one"), tenant.address("two")])
    assert await other.resolve(server, "db") == both
    firsts = {(await other.lines(server, "db"))[0] for _ in range(4)}
    assert sorted(firsts) == both
    assert await linking.resolve(server, "store") == [tenant.address("one")]
    assert await other.resolve(server, "store") == ["NXDOMAIN"]
    assert await other.resolve(server, target[:12], "AAAA") == [tenant.address("one", 6)]
    for version in (4, 6):
        reverse = await asyncio.to_thread(
            other.run, "dig", "+short", f"@{server}", "-x", tenant.address("one", version)
        )
        assert reverse == "one.front.\n"
    tenant.rename("one", "uno")
    assert await other.resolve(server, "uno") == [tenant.address("uno")]
    assert await other.resolve(server, "one") == ["NXDOMAIN"]
    assert await linking.resolve(server, "store") == [tenant.address("uno")]
