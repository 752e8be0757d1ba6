"""One DNS question, read from the bytes of a hostile guest.

Pure. Only what a stub resolver sends is understood: one question without
compression, and EDNS. Everything else is answered FORMERR or not at all, so
nothing of a guest's bytes travels further than this file, but a name, a type
and a few flags.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["BadQuery", "Query", "parse_query"]

_HEADER = struct.Struct("!HHHHHH")
_OPT = 41
_PLAIN_UDP = 512
_MOST_UDP = 1232  # fits an IPv6 minimum MTU: what is longer goes by TCP


class BadQuery(Exception):
    """Not a question. ``id`` is set when it deserves the answer FORMERR (or NOTIMP)."""

    def __init__(self, message: str, *, id: int | None = None, opcode: int = 0) -> None:
        super().__init__(message)
        self.id = id
        self.opcode = opcode


@dataclass(frozen=True, kw_only=True)
class Query:
    id: int
    labels: tuple[bytes, ...]
    type: int
    cls: int
    recursion: bool = True
    checking_disabled: bool = False
    edns: bool = False
    edns_version: int = 0
    dnssec: bool = False
    udp_size: int = _PLAIN_UDP

    @property
    def name(self) -> str:
        return b".".join(self.labels).decode("ascii", errors="backslashreplace").lower()


def parse_query(packet: bytes) -> Query:
    if len(packet) < _HEADER.size:
        raise BadQuery("shorter than a header")
    id_, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & 0x8000:
        raise BadQuery("an answer")
    opcode = flags >> 11 & 15
    if opcode:
        raise BadQuery(f"opcode {opcode}", id=id_, opcode=opcode)
    if questions != 1 or answers or authorities or additional > 2:
        raise BadQuery("not one question", id=id_)
    try:
        labels, at = _name(packet, _HEADER.size)
        type_, cls = struct.unpack_from("!HH", packet, at)
        edns = _edns(packet, at + 4, additional)
    except (struct.error, IndexError, ValueError) as error:
        raise BadQuery(f"cut off or malformed: {error}", id=id_) from error
    common = {
        "id": id_,
        "labels": labels,
        "type": type_,
        "cls": cls,
        "recursion": bool(flags & 0x0100),
        "checking_disabled": bool(flags & 0x0010),
    }
    if edns is None:
        return Query(**common)
    size, version, dnssec = edns
    return Query(
        **common,
        edns=True,
        edns_version=version,
        dnssec=dnssec,
        udp_size=min(max(size, _PLAIN_UDP), _MOST_UDP),
    )


def _name(packet: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    labels: list[bytes] = []
    start = at
    while length := packet[at]:
        if length > 63:
            raise ValueError("a compressed or overlong label")
        label = packet[at + 1 : at + 1 + length]
        if len(label) != length:
            raise ValueError("a label without its end")
        labels.append(label)
        at += 1 + length
        if at - start > 254:
            raise ValueError("a name of more than 255 bytes")
    return tuple(labels), at + 1


def _edns(packet: bytes, at: int, records: int) -> tuple[int, int, bool] | None:
    found = None
    for _ in range(records):
        labels, at = _name(packet, at)
        type_, size, _, version, flags, length = struct.unpack_from("!HHBBHH", packet, at)
        at += 10 + length
        if at > len(packet):
            raise ValueError("a record without its end")
        if type_ == _OPT and not labels:
            if found is not None:
                raise ValueError("two OPT records")
            found = (size, version, bool(flags & 0x8000))
    return found
