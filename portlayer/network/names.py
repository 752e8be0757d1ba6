"""Who may see which name: the directory behind the embedded DNS.

Pure. A container sees the names of the networks that it is on, and nothing
else; its links it alone sees. Which container asks is decided by the network
that the question came in on and its source address (guests cannot forge it,
see nft.py), never by anything in the question.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Client", "Directory", "Member", "Upstreams"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One container on one network."""

    container: str
    name: str
    network: str
    network_name: str
    ipv4: str = ""
    ipv6: str = ""
    aliases: frozenset[str] = frozenset()
    links: tuple[tuple[str, str], ...] = ()  # (container ID, alias)

    def names(self) -> frozenset[str]:
        found = {self.name, self.container[:12], *self.aliases}
        return frozenset(name.lower() for name in found if name)

    def addresses(self, version: int) -> str:
        return self.ipv4 if version == 4 else self.ipv6


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """Where names that are not ours are asked for. Not ``external``: nowhere (internal networks only)."""

    servers: tuple[str, ...] = ()  # empty = the VCH's
    external: bool = True


@dataclass(frozen=True, kw_only=True)
class Client:
    """A container as the DNS sees it: its networks, the one with the default route first."""

    container: str
    members: tuple[Member, ...]
    upstreams: Upstreams = Upstreams()


@dataclass
class _Network:
    by_name: dict[str, dict[str, Member]] = field(default_factory=dict)  # name -> container -> member
    by_container: dict[str, Member] = field(default_factory=dict)
    by_address: dict[str, Member] = field(default_factory=dict)


class Directory:
    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._networks: dict[str, _Network] = {}
        self._turn = 0

    def put(self, client: Client) -> None:
        """Add a container or replace all that was known about it."""
        self.drop(client.container)
        self._clients[client.container] = client
        for member in client.members:
            network = self._networks.setdefault(member.network, _Network())
            network.by_container[member.container] = member
            for address in (member.ipv4, member.ipv6):
                if address:
                    network.by_address[address] = member
            for name in member.names():
                network.by_name.setdefault(name, {})[member.container] = member

    def drop(self, container: str) -> None:
        """Idempotent."""
        client = self._clients.pop(container, None)
        for member in client.members if client is not None else ():
            network = self._networks[member.network]
            del network.by_container[container]
            for address in (member.ipv4, member.ipv6):
                if address and network.by_address.get(address) is member:
                    del network.by_address[address]
            for name in member.names():
                del network.by_name[name][container]
                if not network.by_name[name]:
                    del network.by_name[name]
            if not network.by_container:
                del self._networks[member.network]

    def client(self, network: str, address: str) -> Client | None:
        """Whose address is this on that network?"""
        here = self._networks.get(network)
        member = here.by_address.get(_plain(address)) if here is not None else None
        return None if member is None else self._clients[member.container]

    def lookup(self, client: Client, name: str) -> Sequence[Member] | None:
        """Who has this name on the first of the client's networks that knows it; None: it is not ours.

        Several containers with one alias are rotated.
        """
        wanted = name.lower()
        for member in client.members:
            network = self._networks[member.network]
            found = list(self._matches(network, member, wanted))
            if found:
                self._turn += 1
                turn = self._turn % len(found)
                return found[turn:] + found[:turn]
        return None

    def _matches(self, network: _Network, asker: Member, wanted: str) -> Iterator[Member]:
        linked = False
        for target, alias in asker.links:
            if alias.lower() == wanted and target in network.by_container:
                linked = True
                yield network.by_container[target]
        if linked:
            return
        names = network.by_name.get(wanted)
        suffix = f".{asker.network_name.lower()}"
        if names is None and wanted.endswith(suffix):
            names = network.by_name.get(wanted.removesuffix(suffix))
        yield from (names or {}).values()

    def reverse(self, client: Client, address: str) -> str | None:
        """``name.network`` of an address that the client can see."""
        for member in client.members:
            found = self._networks[member.network].by_address.get(_plain(address))
            if found is not None:
                return f"{found.name}.{found.network_name}"
        return None


def _plain(address: str) -> str:
    """One spelling for each address; a scope says nothing here."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return ""
