"""Published ports: who has which port of which host address.

The table is pure; the sockets that keep other programs (and other VCHs) away
from a port come from the ``hold`` function handed in. Invariant: two
reservations never cover the same protocol, port and address; "" covers every
address, "0.0.0.0" and "::" every one of their family.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import PortBinding, Reason

__all__ = ["Hold", "HoldPort", "HostPort", "PortTable", "canonical"]

_log = logging.getLogger(__name__)

_PROTOCOLS = ("tcp", "udp", "sctp")
_PORTS_CAP = 65536


class Hold(Protocol):
    """Keeps a host port from everybody else until closed."""

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class HostPort:
    protocol: str
    address: str  # "", or a canonical address
    port: int

    def conflicts(self, other: HostPort) -> bool:
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        if "" in (self.address, other.address) or self.address == other.address:
            return True
        mine, theirs = ipaddress.ip_address(self.address), ipaddress.ip_address(other.address)
        return mine.version == theirs.version and (mine.is_unspecified or theirs.is_unspecified)

    def __str__(self) -> str:
        address = self.address or "0.0.0.0"  # noqa: S104 - Docker's word for "everywhere", nothing is bound here
        return f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"


HoldPort = Callable[[HostPort], Hold]  # raises OSError


class PortTable:
    def __init__(self, *, ephemeral: range, hold: HoldPort) -> None:
        self._ephemeral = ephemeral
        self._hold = hold
        self._taken: dict[tuple[str, int], dict[HostPort, str]] = {}
        self._held: dict[str, dict[HostPort, Hold | None]] = {}
        self._next = 0  # offset in the ephemeral range where the search starts: do not reuse at once

    def owner(self, port: HostPort) -> str | None:
        for taken, owner in self._taken.get((port.protocol, port.port), {}).items():
            if port.conflicts(taken):
                return owner
        return None

    def reserve(self, container: str, bindings: Sequence[PortBinding]) -> list[PortBinding]:
        """All of ``bindings`` or none. What the container had before is kept when still wanted, else freed.

        Raises:
            PortLayerError: PORT_IN_USE; the container has the ports it had before.
        """
        if len(bindings) > _PORTS_CAP:
            raise PortLayerError(Reason.LIMIT_EXCEEDED, f"more than {_PORTS_CAP} published ports")
        before = self._held.pop(container, {})
        self._forget(container, before)
        held: dict[HostPort, Hold | None] = {}
        result: list[PortBinding] = []
        try:
            for binding in bindings:
                port = self._reserve_one(container, binding, before, held)
                filled = PortBinding()
                filled.CopyFrom(binding)
                filled.host_ip = port.address
                filled.assigned_port = port.port
                result.append(filled)
        except PortLayerError:
            self._forget(container, held)
            self._close(hold for port, hold in held.items() if port not in before)
            self._remember(container, {p: h if h is not None else self._try(p) for p, h in before.items()})
            raise
        self._close(hold for port, hold in before.items() if port not in held)
        self._held[container] = held
        return result

    def restore(self, container: str, bindings: Sequence[PortBinding]) -> None:
        """Take what a running container already has. A port that some other program took meanwhile is
        logged and stays published: the container's specification is the truth."""
        held: dict[HostPort, Hold | None] = {}
        for binding in bindings:
            if not binding.assigned_port:
                continue
            port = HostPort(
                protocol=binding.protocol, address=canonical(binding.host_ip), port=binding.assigned_port
            )
            if (owner := self.owner(port)) is not None:
                _log.warning("port %s/%s of %s belongs to %s too", port, port.protocol, container, owner)
                continue
            held[port] = self._try(port)
            self._remember(container, {port: held[port]})
        self._held[container] = held

    def _try(self, port: HostPort) -> Hold | None:
        try:
            return self._hold(port)
        except OSError as error:
            _log.warning("port %s/%s cannot be held: %s", port, port.protocol, error)
            return None

    def release(self, container: str) -> None:
        """Idempotent."""
        held = self._held.pop(container, {})
        self._forget(container, held)
        self._close(held.values())

    def close(self) -> None:
        """Let go of every socket; whoever opens next takes them again."""
        for container in list(self._held):
            self.release(container)

    # -- one binding
    def _reserve_one(
        self,
        container: str,
        binding: PortBinding,
        before: dict[HostPort, Hold | None],
        held: dict[HostPort, Hold | None],
    ) -> HostPort:
        protocol = binding.protocol or "tcp"
        if protocol not in _PROTOCOLS:
            raise PortLayerError(Reason.NOT_SUPPORTED, f"invalid protocol {protocol!r} of a published port")
        if not 1 <= binding.container_port <= 65535:
            raise PortLayerError(Reason.UNSPECIFIED, f"invalid container port {binding.container_port}")
        address = canonical(binding.host_ip)
        problem: PortLayerError | None = None
        for number in self._candidates(binding):
            port = HostPort(protocol=protocol, address=address, port=number)
            if self.owner(port) is not None:
                problem = PortLayerError(
                    Reason.PORT_IN_USE, f"Bind for {port} failed: port is already allocated"
                )
                continue
            if before.get(port) is not None:
                hold = before[port]
            else:
                for old, socket in before.items():
                    if old.conflicts(port):  # our own socket: the same port, another address
                        self._close([socket])
                        before[old] = None
                try:
                    hold = self._hold(port)
                except OSError as error:
                    problem = _refusal(port, error)
                    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                        raise problem from error
                    continue
            held[port] = hold
            self._taken.setdefault((protocol, number), {})[port] = container
            return port
        if problem is not None and not binding.host_port_end and binding.host_port:
            raise problem
        raise PortLayerError(
            Reason.PORT_IN_USE,
            f"Bind for {address or '0.0.0.0'} failed: all ports are allocated"  # noqa: S104
            + (f" in {binding.host_port}-{binding.host_port_end}" if binding.host_port else ""),
        )

    def _candidates(self, binding: PortBinding) -> Iterator[int]:
        first, last = binding.host_port, binding.host_port_end or binding.host_port
        if not first:
            size = len(self._ephemeral)
            if binding.assigned_port:  # what it had when it ran last
                yield binding.assigned_port
            for _ in range(size):
                candidate = self._ephemeral[self._next % size]
                self._next += 1
                yield candidate
            return
        if not 1 <= first <= last <= 65535:
            raise PortLayerError(Reason.UNSPECIFIED, f"invalid host port range {first}-{last}")
        if first <= binding.assigned_port <= last:
            yield binding.assigned_port
        yield from range(first, last + 1)

    # -- bookkeeping
    def _remember(self, container: str, held: dict[HostPort, Hold | None]) -> None:
        for port in held:
            self._taken.setdefault((port.protocol, port.port), {})[port] = container
        if held:
            self._held.setdefault(container, {}).update(held)

    def _forget(self, container: str, held: Iterable[HostPort]) -> None:
        for port in held:
            ports = self._taken.get((port.protocol, port.port), {})
            if ports.get(port) == container:
                del ports[port]
            if not ports:
                self._taken.pop((port.protocol, port.port), None)

    def _close(self, holds: Iterable[Hold | None]) -> None:
        for hold in holds:
            if hold is not None:
                with suppress(OSError):  # close() of a socket reports errors of data; there is none
                    hold.close()


def canonical(address: str) -> str:
    """One spelling for each host address; "" stays "everywhere"."""
    if not address:
        return ""
    try:
        return str(ipaddress.ip_address(address.strip("[]")))
    except ValueError as error:
        raise PortLayerError(Reason.UNSPECIFIED, f"invalid host IP {address!r}") from error


def _refusal(port: HostPort, error: OSError) -> PortLayerError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        reason = Reason.LIMIT_EXCEEDED
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = Reason.UNSPECIFIED
    else:
        reason = Reason.PORT_IN_USE
    words = (error.strerror or str(error)).lower()
    return PortLayerError(reason, f"failed to bind host port {port}/{port.protocol}: {words}")
