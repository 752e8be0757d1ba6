"""The embedded DNS: what to answer, and what to ask elsewhere. Sans-IO.

:meth:`Resolver.ask` takes the bytes of one question and says either the bytes
of the answer or a :class:`Forward`; :meth:`Resolver.finish` turns what the
upstream server said into the answer. dnsserver.py does the input and output.

Names of containers are answered with authority: a name that exists but has no
address of the wanted kind is NODATA, never NXDOMAIN (a resolver that hears
NXDOMAIN for AAAA drops the A as well), and is never forwarded.
"""

from __future__ import annotations

import ipaddress
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dnslib import AAAA, EDNS0, PTR, QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from dnslib.dns import DNSError
from dnslib.label import DNSLabel

from portlayer.network.names import Client, Directory, Member
from portlayer.network.query import BadQuery, Query, parse_query

__all__ = ["Forward", "Resolver"]

_TTL = 10  # a recreated container has another address
_CACHE_ENTRIES = 1024
_CACHE_MESSAGE = 4096
_CACHE_SECONDS = 300
_NEGATIVE_SECONDS = 30
_IN, _ANY = 1, 255
_ADDRESSES_CAP = 64
_ARPA4, _ARPA6 = (b"in-addr", b"arpa"), (b"ip6", b"arpa")


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Ask ``servers`` in turn for ``packet``."""

    query: Query
    servers: tuple[str, ...]
    packet: bytes
    tcp: bool  # how the client asked


@dataclass(frozen=True)
class _Cached:
    message: bytes
    stored: float
    expires: float


class Resolver:
    def __init__(
        self,
        directory: Directory,
        *,
        upstreams: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._upstreams = upstreams  # of the VCH, for containers that have none of their own
        self._clock = clock
        self._cache: OrderedDict[tuple[object, ...], _Cached] = OrderedDict()

    def ask(self, packet: bytes, *, network: str, source: str, tcp: bool) -> bytes | Forward | None:
        """None: say nothing."""
        try:
            query = parse_query(packet)
        except BadQuery as problem:
            if problem.id is None:
                return None
            rcode = RCODE.NOTIMP if problem.opcode else RCODE.FORMERR
            header = DNSHeader(id=problem.id, qr=1, opcode=problem.opcode, rcode=rcode)
            return bytes(DNSRecord(header).pack())
        if query.edns_version:
            return self._pack(query, [], rcode=16, tcp=tcp)  # BADVERS
        client = self._directory.client(network, source)
        if client is None or query.cls != _IN or query.type in (QTYPE.AXFR, QTYPE.IXFR):
            return self._pack(query, [], rcode=RCODE.REFUSED, tcp=tcp)
        own = self._own(client, query)
        if own is not None:
            return self._pack(query, own, tcp=tcp, authoritative=True)
        return self._elsewhere(client, query, tcp=tcp)

    def finish(self, forward: Forward, answer: bytes | None) -> bytes:
        """``answer``: an upstream's message, None when nobody answered."""
        query = forward.query
        parsed = None if answer is None else _parse_answer(answer, forward)
        if answer is None or parsed is None:
            return self._pack(query, [], rcode=RCODE.SERVFAIL, tcp=forward.tcp)
        self._remember(forward, answer, parsed)
        return self._deliver(query, answer, tcp=forward.tcp)

    # -- our own names
    def _own(self, client: Client, query: Query) -> list[RR] | None:
        """Records (none: NODATA), or None when the name is not ours."""
        address = _arpa(query.labels)
        if address is not None:
            name = self._directory.reverse(client, address)
            if name is None:
                return None
            record = RR(DNSLabel(query.labels), QTYPE.PTR, ttl=_TTL, rdata=PTR(DNSLabel(name.encode())))
            return [record] if query.type in (QTYPE.PTR, _ANY) else []
        members = self._directory.lookup(client, query.name)
        if members is None:
            return None
        return [*self._addresses(query, members, 4), *self._addresses(query, members, 6)]

    @staticmethod
    def _addresses(query: Query, members: Sequence[Member], version: int) -> list[RR]:
        kind, data = (QTYPE.A, A) if version == 4 else (QTYPE.AAAA, AAAA)
        if query.type not in (kind, _ANY):
            return []
        found = [member.addresses(version) for member in members]
        return [
            RR(DNSLabel(query.labels), kind, ttl=_TTL, rdata=data(address))
            for address in found[:_ADDRESSES_CAP]
            if address
        ]

    # -- other names
    def _elsewhere(self, client: Client, query: Query, *, tcp: bool) -> bytes | Forward:
        servers = tuple(client.upstreams.servers or self._upstreams()) if client.upstreams.external else ()
        if not servers or not query.recursion:
            # A single word could only be a container. Of other names we know nothing.
            rcode = RCODE.NXDOMAIN if len(query.labels) == 1 else RCODE.SERVFAIL
            return self._pack(query, [], rcode=rcode, tcp=tcp)
        cached = self._recall(query, servers)
        if cached is not None:
            return self._deliver(query, cached, tcp=tcp)
        header = DNSHeader(id=secrets.randbelow(1 << 16), rd=1, cd=int(query.checking_disabled))
        question = DNSRecord(header, q=DNSQuestion(DNSLabel(query.labels), query.type, query.cls))
        if query.edns:
            question.add_ar(EDNS0(udp_len=1232, flags="do" if query.dnssec else ""))
        return Forward(query=query, servers=servers, packet=bytes(question.pack()), tcp=tcp)

    def _deliver(self, query: Query, message: bytes, *, tcp: bool) -> bytes:
        answer = struct.pack("!H", query.id) + message[2:]
        if tcp or len(answer) <= query.udp_size:
            return answer
        return self._truncated(query)

    # -- cache
    @staticmethod
    def _key(query: Query, servers: tuple[str, ...]) -> tuple[object, ...]:
        # With the spelling of the name: the answer repeats it, and resolvers that vary it compare.
        return (query.labels, query.type, query.dnssec, query.edns, query.checking_disabled, servers)

    def _recall(self, query: Query, servers: tuple[str, ...]) -> bytes | None:
        key = self._key(query, servers)
        entry = self._cache.get(key)
        now = self._clock()
        if entry is None:
            return None
        if entry.expires <= now:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        parsed = DNSRecord.parse(entry.message)
        age = int(now - entry.stored)
        for record in (*parsed.rr, *parsed.auth, *parsed.ar):
            if record.rtype != QTYPE.OPT:
                record.ttl = max(record.ttl - age, 0)
        return bytes(parsed.pack())

    def _remember(self, forward: Forward, answer: bytes, parsed: DNSRecord) -> None:
        if len(answer) > _CACHE_MESSAGE or parsed.header.tc or parsed.header.rcode not in (0, RCODE.NXDOMAIN):
            return
        records = [record for record in (*parsed.rr, *parsed.auth, *parsed.ar) if record.rtype != QTYPE.OPT]
        limit = _CACHE_SECONDS if parsed.rr else _NEGATIVE_SECONDS
        seconds = min([limit, *(record.ttl for record in records)])
        if seconds <= 0:
            return
        now = self._clock()
        self._cache[self._key(forward.query, forward.servers)] = _Cached(answer, now, now + seconds)
        while len(self._cache) > _CACHE_ENTRIES:
            self._cache.popitem(last=False)

    # -- messages
    def _pack(
        self, query: Query, records: Sequence[RR], *, rcode: int = 0, tcp: bool, authoritative: bool = False
    ) -> bytes:
        header = DNSHeader(
            id=query.id,
            qr=1,
            aa=int(authoritative),
            rd=int(query.recursion),
            ra=1,
            rcode=rcode & 15,
        )
        answer = DNSRecord(header, q=DNSQuestion(DNSLabel(query.labels), query.type, query.cls))
        answer.add_answer(*records)
        if query.edns:
            answer.add_ar(EDNS0(udp_len=1232, ext_rcode=rcode >> 4))
        packed = bytes(answer.pack())
        if tcp or len(packed) <= query.udp_size:
            return packed
        return self._truncated(query)

    def _truncated(self, query: Query) -> bytes:
        whole = self._pack(replace(query, udp_size=65535), [], tcp=False)
        return whole[:2] + struct.pack("!H", struct.unpack_from("!H", whole, 2)[0] | 0x0200) + whole[4:]


def _parse_answer(answer: bytes, forward: Forward) -> DNSRecord | None:
    """The message if it is an answer to this very question."""
    if len(answer) < 12 or answer[:2] != forward.packet[:2] or not answer[2] & 0x80:
        return None
    try:
        parsed = DNSRecord.parse(answer)
    except (DNSError, ValueError, IndexError, KeyError, TypeError, RecursionError, struct.error):
        return None  # dnslib lets several of its own slips through; the server's message is unreadable
    asked = forward.query
    if len(parsed.questions) != 1:
        return None
    question = parsed.questions[0]
    labels = tuple(label.lower() for label in question.qname.label)
    wanted = tuple(label.lower() for label in asked.labels)
    if (labels, question.qtype, question.qclass) != (wanted, asked.type, asked.cls):
        return None
    return parsed


def _arpa(labels: tuple[bytes, ...]) -> str | None:
    """The address that a reverse name stands for."""
    lowered = tuple(label.lower() for label in labels)
    try:
        words = [label.decode("ascii") for label in reversed(lowered[:-2])]
        if lowered[-2:] == _ARPA4 and len(words) == 4:
            return str(ipaddress.IPv4Address(".".join(words)))
        if lowered[-2:] == _ARPA6 and len(words) == 32 and all(len(word) == 1 for word in words):
            return str(ipaddress.IPv6Address(int("".join(words), 16)))
    except ValueError:
        return None
    return None
