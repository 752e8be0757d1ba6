import dataclasses

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, SOA, TXT, A, DNSHeader, DNSRecord

from portlayer.network.dns import Forward, Resolver
from portlayer.network.names import Client, Directory, Member, Upstreams

WEB = Client(
    container="a" * 64,
    members=(
        Member(
            container="a" * 64,
            name="web",
            network="n1",
            network_name="front",
            ipv4="10.0.0.2",
            ipv6="fd00::2",
        ),
    ),
)
DB = Client(
    container="b" * 64,
    members=(Member(container="b" * 64, name="db", network="n1", network_name="front", ipv4="10.0.0.3"),),
)


class World:
    def __init__(self) -> None:
        self.directory = Directory()
        self.directory.put(WEB)
        self.directory.put(DB)
        self.upstreams = ["192.0.2.53"]
        self.now = 1000.0
        self.resolver = Resolver(self.directory, upstreams=lambda: self.upstreams, clock=lambda: self.now)

    def raw(
        self, record: DNSRecord, *, source: str = "10.0.0.2", tcp: bool = False
    ) -> bytes | Forward | None:
        return self.resolver.ask(bytes(record.pack()), network="n1", source=source, tcp=tcp)

    def ask(self, name: str, kind: str = "A", *, source: str = "10.0.0.2", tcp: bool = False) -> DNSRecord:
        question = DNSRecord.question(name, kind)
        answer = self.raw(question, source=source, tcp=tcp)
        assert isinstance(answer, bytes)
        parsed = DNSRecord.parse(answer)
        assert parsed.header.id == question.header.id
        return parsed

    def forward(self, name: str, kind: str = "A", *, tcp: bool = False) -> Forward:
        outcome = self.raw(DNSRecord.question(name, kind), tcp=tcp)
        assert isinstance(outcome, Forward)
        return outcome


@pytest.fixture
def world() -> World:
    return World()


def data(record: DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in record.rr]


def status(record: DNSRecord) -> str:
    return str(RCODE[record.header.rcode])


def test_a_and_aaaa(world: World) -> None:
    assert data(world.ask("web")) == ["10.0.0.2"]
    assert data(world.ask("WEB.", "AAAA")) == ["fd00::2"]
    answer = world.ask("web.front")
    assert (answer.header.aa, answer.header.ra, status(answer)) == (1, 1, "NOERROR")
    assert sorted(data(world.ask("web", "ANY"))) == ["10.0.0.2", "fd00::2"]


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV"])
def test_a_name_without_such_a_record_is_nodata(world: World, kind: str) -> None:
    answer = world.ask("db", kind)
    assert (status(answer), data(answer), answer.header.aa) == ("NOERROR", [], 1)


def test_reverse(world: World) -> None:
    assert data(world.ask("2.0.0.10.in-addr.arpa", "PTR")) == ["web.front."]
    name = "2." + "0." * 27 + "0.0.d.f.ip6.arpa"
    assert data(world.ask(name, "PTR")) == ["web.front."]
    assert (status(world.ask("2.0.0.10.in-addr.arpa", "A")), data(world.ask("2.0.0.10.in-addr.arpa"))) == (
        "NOERROR",
        [],
    )


@pytest.mark.parametrize(
    "name", ["9.0.0.10.in-addr.arpa", "x.0.0.10.in-addr.arpa", "0.10.in-addr.arpa", "ip6.arpa"]
)
def test_other_reverse_names_are_asked_elsewhere(world: World, name: str) -> None:
    assert world.forward(name, "PTR").servers == ("192.0.2.53",)


def test_strangers_are_refused(world: World) -> None:
    assert status(world.ask("web", source="10.0.0.99")) == "REFUSED"
    assert status(world.ask("web", "AXFR")) == "REFUSED"
    chaos = DNSRecord.question("version.bind", "TXT", "CH")
    answer = world.raw(chaos)
    assert isinstance(answer, bytes) and status(DNSRecord.parse(answer)) == "REFUSED"


def test_bad_packets(world: World) -> None:
    ask = world.resolver.ask
    assert ask(b"x", network="n1", source="10.0.0.2", tcp=False) is None
    formerr = ask(DNSRecord(DNSHeader(id=5, rd=1)).pack(), network="n1", source="10.0.0.2", tcp=False)
    assert isinstance(formerr, bytes) and status(DNSRecord.parse(formerr)) == "FORMERR"
    notify = ask(DNSRecord(DNSHeader(id=5, opcode=4)).pack(), network="n1", source="10.0.0.2", tcp=False)
    assert isinstance(notify, bytes) and status(DNSRecord.parse(notify)) == "NOTIMP"


def test_unknown_edns_version(world: World) -> None:
    question = DNSRecord.question("web")
    question.add_ar(EDNS0(version=1))
    answer = world.raw(question)
    assert isinstance(answer, bytes)
    parsed = DNSRecord.parse(answer)
    assert (parsed.header.rcode, parsed.ar[0].ttl >> 24, data(parsed)) == (0, 1, [])


def test_other_names_go_to_the_vch_s_servers_or_the_user_s(world: World) -> None:
    assert world.forward("example.org").servers == ("192.0.2.53",)
    world.directory.put(dataclasses.replace(WEB, upstreams=Upstreams(servers=("192.0.2.99",))))
    forward = world.forward("example.org")
    assert forward.servers == ("192.0.2.99",)
    sent = DNSRecord.parse(forward.packet)
    assert (str(sent.q.qname), sent.header.rd, len(sent.ar)) == ("example.org.", 1, 0)


def test_internal_containers_are_not_forwarded(world: World) -> None:
    world.directory.put(
        dataclasses.replace(WEB, upstreams=Upstreams(servers=("192.0.2.99",), external=False))
    )
    assert status(world.ask("example.org")) == "SERVFAIL"
    assert status(world.ask("unknown")) == "NXDOMAIN"
    assert data(world.ask("db")) == ["10.0.0.3"]


def test_without_upstream_servers(world: World) -> None:
    world.upstreams = []
    assert status(world.ask("unknown")) == "NXDOMAIN"
    assert status(world.ask("example.org")) == "SERVFAIL"


def answer_to(forward: Forward, *records: RR, **header: int) -> bytes:
    reply = DNSRecord.parse(forward.packet).reply()
    reply.header.aa = 0
    for name, value in header.items():
        setattr(reply.header, name, value)
    reply.add_answer(*records)
    return bytes(reply.pack())


def a_record(name: str = "example.org", ttl: int = 60) -> RR:
    return RR(name, QTYPE.A, ttl=ttl, rdata=A("192.0.2.80"))


def test_the_answer_carries_the_client_s_number(world: World) -> None:
    question = DNSRecord.question("example.org")
    forward = world.raw(question)
    assert isinstance(forward, Forward)
    answer = DNSRecord.parse(world.resolver.finish(forward, answer_to(forward, a_record())))
    assert (answer.header.id, data(answer)) == (question.header.id, ["192.0.2.80"])


def test_answers_are_cached_and_age(world: World) -> None:
    forward = world.forward("example.org")
    world.resolver.finish(forward, answer_to(forward, a_record(ttl=60)))
    world.now += 20
    cached = world.ask("example.org")
    assert (data(cached), cached.rr[0].ttl) == (["192.0.2.80"], 40)
    world.now += 41
    world.forward("example.org")


def test_the_cache_is_not_shared_between_different_servers(world: World) -> None:
    forward = world.forward("example.org")
    world.resolver.finish(forward, answer_to(forward, a_record()))
    world.directory.put(dataclasses.replace(WEB, upstreams=Upstreams(servers=("192.0.2.99",))))
    assert world.forward("example.org").servers == ("192.0.2.99",)


def test_nxdomain_is_cached_shortly(world: World) -> None:
    forward = world.forward("no.example.org")
    reply = DNSRecord.parse(forward.packet).reply()
    reply.header.rcode = RCODE.NXDOMAIN
    reply.add_auth(RR("example.org", QTYPE.SOA, ttl=3600, rdata=SOA("ns.example.org", "root.example.org")))
    world.resolver.finish(forward, reply.pack())
    assert status(world.ask("no.example.org")) == "NXDOMAIN"
    world.now += 31
    world.forward("no.example.org")


@pytest.mark.parametrize("header", [{"tc": 1}, {"rcode": RCODE.SERVFAIL}])
def test_what_is_not_cached(world: World, header: dict[str, int]) -> None:
    forward = world.forward("example.org")
    world.resolver.finish(forward, answer_to(forward, a_record(), **header))
    world.forward("example.org")


def test_the_cache_is_bounded(world: World) -> None:
    first = world.forward("n0.example.org")
    world.resolver.finish(first, answer_to(first, a_record("n0.example.org")))
    for number in range(1, 1025):
        forward = world.forward(f"n{number}.example.org")
        world.resolver.finish(forward, answer_to(forward, a_record(f"n{number}.example.org")))
    world.forward("n0.example.org")
    assert data(world.ask("n1024.example.org")) == ["192.0.2.80"]


def test_answers_to_something_else_are_not_believed(world: World) -> None:
    forward = world.forward("example.org")
    other = world.forward("evil.example.org")
    good = answer_to(forward, a_record())
    for bad in (
        None,
        b"",
        good[:11],
        b"\xff\xff" + good[2:] if good[:2] != b"\xff\xff" else b"\0\0" + good[2:],
        good[:2] + bytes([good[2] & 0x7F]) + good[3:],
        good[:20],
        forward.packet[:2] + answer_to(other, a_record())[2:],
        forward.packet[:2] + b"\x80\0\0\0\0\0\0\0\0\0",
    ):
        assert status(DNSRecord.parse(world.resolver.finish(forward, bad))) == "SERVFAIL", bad


def test_a_long_answer_is_truncated_over_udp_and_whole_over_tcp(world: World) -> None:
    records = [RR("example.org", QTYPE.TXT, ttl=9, rdata=TXT("x" * 200)) for _ in range(4)]
    forward = world.forward("example.org", "TXT")
    short = DNSRecord.parse(world.resolver.finish(forward, answer_to(forward, *records)))
    assert (short.header.tc, data(short)) == (1, [])
    assert len(data(world.ask("example.org", "TXT", tcp=True))) == 4


def test_many_addresses_of_one_alias_are_truncated_too(world: World) -> None:
    for number in range(50):
        container = f"{number:064x}"
        world.directory.put(
            Client(
                container=container,
                members=(
                    Member(
                        container=container,
                        name=f"c{number}",
                        network="n1",
                        network_name="front",
                        ipv4=f"10.0.1.{number}",
                        aliases=frozenset({"many"}),
                    ),
                ),
            )
        )
    assert (world.ask("many").header.tc, len(data(world.ask("many", tcp=True)))) == (1, 50)


def test_edns_is_passed_on(world: World) -> None:
    question = DNSRecord.question("example.org")
    question.add_ar(EDNS0(udp_len=4096, flags="do"))
    forward = world.raw(question)
    assert isinstance(forward, Forward)
    sent = DNSRecord.parse(forward.packet)
    assert (sent.ar[0].edns_do, sent.ar[0].edns_len) == (1, 1232)
