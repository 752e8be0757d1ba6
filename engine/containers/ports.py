"""Ports: "80/tcp", ranges, PortBindings, and how Docker shows what became of them. No I/O."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.containers.hostconfig import PortBinding
from engine.http import BadRequest
from portlayer import portlayer_pb2 as pb

__all__ = ["Port", "bindings_to_spec", "parse_port", "parse_port_range", "port_map", "port_summaries"]

PROTOCOLS = ("tcp", "udp", "sctp")
MAX_PORTS = 4096
EVERYWHERE = "0.0.0.0"  # noqa: S104

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, order=True)
class Port:
    number: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


def parse_port_range(text: str) -> tuple[int, int]:
    """ "80" or "8000-8010"; BadRequest otherwise."""
    found = _RANGE.fullmatch(text)
    if found:
        start, end = int(found[1]), int(found[2] or found[1])
        if start <= end <= 65535:
            return start, end
    raise BadRequest(f'invalid port specification: "{text}"')


def parse_port(text: str) -> list[Port]:
    """ "80", "80/udp", "8000-8010/tcp"."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise BadRequest(f'invalid port specification: "{text}"')
    start, end = parse_port_range(number)
    if start == 0:
        raise BadRequest(f'invalid port specification: "{text}"')
    return [Port(n, protocol) for n in range(start, end + 1)]


def parse_exposed(exposed: Iterable[str]) -> Sequence[Port]:
    return _parse_exposed(tuple(exposed))


@functools.lru_cache(maxsize=4096)  # containers of one image expose the same ports
def _parse_exposed(exposed: tuple[str, ...]) -> tuple[Port, ...]:
    return tuple(sorted({port for text in exposed for port in parse_port(text)}))


def bindings_to_spec(
    bindings: Mapping[str, Sequence[PortBinding] | None], exposed: Iterable[str], *, publish_all: bool
) -> list[pb.PortBinding]:
    """What the port layer is to publish.

    An exposed port without a binding is published at any free port with
    ``publish_all``.
    """
    result: list[pb.PortBinding] = []
    bound: set[Port] = set()
    for text, wanted in bindings.items():
        for port in parse_port(text):
            bound.add(port)
            for binding in wanted or [PortBinding()]:
                result.append(_binding(port, binding))
    if publish_all:
        result += [
            pb.PortBinding(container_port=port.number, protocol=port.protocol)
            for port in parse_exposed(exposed)
            if port not in bound
        ]
    if len(result) > MAX_PORTS:
        raise BadRequest(f"too many published ports: {len(result)}, at most {MAX_PORTS}")
    return result


def _binding(port: Port, binding: PortBinding) -> pb.PortBinding:
    if binding.HostIp:
        try:
            ipaddress.ip_address(binding.HostIp)
        except ValueError:
            raise BadRequest(f"invalid IP address in port binding: {binding.HostIp!r}") from None
    start, end = parse_port_range(binding.HostPort) if binding.HostPort else (0, 0)
    return pb.PortBinding(
        container_port=port.number,
        protocol=port.protocol,
        host_ip=binding.HostIp,
        host_port=start,
        host_port_end=end if end != start else 0,
    )


def port_map(
    published: Iterable[pb.PortBinding], exposed: Iterable[str], *, ipv6: bool
) -> dict[str, list[dict[str, str]] | None]:
    """NetworkSettings.Ports of a running container."""
    result: dict[str, list[dict[str, str]] | None] = {str(port): None for port in parse_exposed(exposed)}
    for binding in published:
        key = f"{binding.container_port}/{binding.protocol}"
        shown = result.get(key) or []
        for address in _addresses(binding, ipv6=ipv6):
            shown.append({"HostIp": address, "HostPort": str(binding.assigned_port or binding.host_port)})
        result[key] = shown
    return result


def port_summaries(
    published: Iterable[pb.PortBinding], exposed: Iterable[str], *, ipv6: bool
) -> list[dict[str, Any]]:
    """The Ports of ``docker ps``."""
    result: list[dict[str, Any]] = []
    bound: set[tuple[int, str]] = set()
    for binding in published:
        private, protocol = binding.container_port, binding.protocol
        bound.add((private, protocol))
        public = binding.assigned_port or binding.host_port
        for address in _addresses(binding, ipv6=ipv6):
            result.append({"IP": address, "PrivatePort": private, "PublicPort": public, "Type": protocol})
    for port in parse_exposed(exposed):
        if (port.number, port.protocol) not in bound:
            result.append({"PrivatePort": port.number, "Type": port.protocol})
    return result


def _addresses(binding: pb.PortBinding, *, ipv6: bool) -> list[str]:
    host_ip = binding.host_ip
    if host_ip:
        return [host_ip]
    return [EVERYWHERE, "::"] if ipv6 else [EVERYWHERE]
