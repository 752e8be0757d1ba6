"""The networks of one VCH on one host: the room's public face.

Three things make up the state: network files (which networks there are), the
containers' specifications (who has which address and port; handed to open())
and the host (bridges, taps, rules). The first two are the truth; open() brings
the host to it from whatever a crash, a reboot or an administrator left behind,
and removes what belongs to this VCH and to nothing else.

A network's file is written before its bridge is made and deleted after the
bridge is gone, so that a bridge without a file is a stray.

Mutations run to their end even when the caller is cancelled; each leaves the
old state or the new one.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import ipaddress
import logging
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from portlayer.errors import PortLayerError
from portlayer.network import coexist
from portlayer.network.attachment import Attachment, PluggedNic
from portlayer.network.dns import Resolver as DnsResolver
from portlayer.network.dnsserver import DnsServers
from portlayer.network.firewall import Firewall, FirewallError
from portlayer.network.guest import interfaces, resolver
from portlayer.network.ipam import Subnet, unique_local_range
from portlayer.network.links import BridgeLink, LinkError, Links
from portlayer.network.names import Directory
from portlayer.network.nft import table_name
from portlayer.network.plugging import Plugging
from portlayer.network.poollock import pool_lock
from portlayer.network.ports import PortTable
from portlayer.network.purge import purge as remove_traces
from portlayer.network.registry import Entry, Registry, bridge_mac
from portlayer.network.resolvconf import HostResolver
from portlayer.network.ruleset import Ruleset
from portlayer.network.sockets import ephemeral_range, hold_port
from portlayer.network.store import NetworkStore, StoreError
from portlayer.network.switch import Switch, bridge_alias, place, preferred_endpoint
from portlayer.network.watch import Finding, RulesWatcher
from portlayer.portlayer_pb2 import Endpoint, Network, NetworkEndpoint, PortBinding, Reason
from tether.tether_pb2 import Interface, Resolver

__all__ = ["NetworkManager"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
_BUILTIN = (("bridge", "bridge"), ("none", "none"))


class NetworkManager:
    def __init__(
        self,
        state: Path,
        *,
        vch_id: str,
        bridge_range: str,
        bridge_width: int,
        bridge_range_v6: str,
        dns: Sequence[str],
        qemu_uid: int,
        host_access: bool = False,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        ranges: dict[int, Subnet] = {
            4: ipaddress.IPv4Network(bridge_range),
            6: ipaddress.IPv6Network(bridge_range_v6) if bridge_range_v6 else unique_local_range(vch_id),
        }
        if not ranges[4].prefixlen <= bridge_width <= 30:
            raise ValueError(f"bridge width /{bridge_width} does not fit {bridge_range}")
        if ranges[6].prefixlen > 64:
            raise ValueError(f"{bridge_range_v6}: IPv6 networks are /64, the range must be larger")
        self._vch = vch_id
        self._host_access = host_access
        self._dns = tuple(dns)
        self._host_resolver = HostResolver(resolv_conf)
        self._store = NetworkStore(state)
        self._registry = Registry(ranges=ranges, width=bridge_width)
        self._links = Links(vch_id)
        self._switch = Switch(self._registry, vch=vch_id, owner=qemu_uid)
        self._firewall = Firewall(self._rules)
        self._directory = Directory()
        self._plugging = Plugging(
            registry=self._registry,
            switch=self._switch,
            links=self._links,
            firewall=self._firewall,
            directory=self._directory,
        )
        self._servers = DnsServers(DnsResolver(self._directory, upstreams=self._upstreams))
        self._ports = PortTable(ephemeral=ephemeral_range(), hold=hold_port)
        self._watcher = RulesWatcher(table_name(vch_id), self._repair)
        self._lock = asyncio.Lock()  # networks come and go one at a time
        self._warned: set[str] = set()  # base chains of others that drop by default
        self._running_work: set[asyncio.Task[Any]] = set()

    # -- opening
    async def open(self, containers: Sequence[Attachment]) -> None:
        """Restore everything from files and specifications; remove strays of this VCH.

        Raises:
            PortLayerError: a network file is unreadable, or the host refuses; nothing is served then.
        """
        try:
            stored = self._store.load()
            for network in stored:
                self._registry.restore(network)
        except (StoreError, PortLayerError, OSError) as error:
            raise PortLayerError(Reason.UNSPECIFIED, f"networks cannot be restored: {error}") from error
        self._restore_leases(containers)
        await self._translated(self._restore_host(containers))
        for name, kind in _BUILTIN:
            if self._registry.by_name(name) is None:
                await self.create(Network(name=name, type=kind, builtin=True))
        self._watcher.start()

    def _restore_leases(self, containers: Sequence[Attachment]) -> None:
        """Of the running first. A stopped container has what its specification says was assigned to it."""
        for attachment in sorted(containers, key=lambda a: not a.running):
            for endpoint in attachment.endpoints:
                if endpoint.network not in self._registry.entries:
                    _log.warning("%s is on network %s, which is gone", attachment.name, endpoint.network)
                elif attachment.running or endpoint.endpoint_id:
                    try:
                        self._registry.allocate(attachment.container, endpoint)
                    except PortLayerError as error:
                        _log.error("%s on network %s: %s", attachment.name, endpoint.network, error)
            if attachment.running:
                self._ports.restore(attachment.container, attachment.ports)

    async def _restore_host(self, containers: Sequence[Attachment]) -> None:
        """One network or container that the host refuses is logged and does not keep the others down."""
        present = await asyncio.to_thread(self._links.ours)
        for attachment in containers:
            if attachment.running:
                try:
                    plug = self._switch.plug(self._known(attachment, strict=False), present=present)
                except PortLayerError as error:
                    _log.error("the network of %s is not restored: %s", attachment.name, error)
                else:
                    self._directory.put(plug.client())
        wanted = self._switch.taps() | {e.network.bridge for e in self._bridges()}
        for name in sorted(present.keys() - wanted):
            _log.info("removing stray interface %s (%s)", name, present[name])
            await asyncio.to_thread(self._links.remove, name)
        for entry in self._bridges():
            await self._attempt(f"network {entry.network.name}", self._serve_names(entry))
        await self._firewall.apply()
        for entry in self._bridges():
            await self._attempt(f"network {entry.network.name}", self._raise_bridge(entry))
        await self._synchronize()
        for plug in self._switch.all():
            await self._attempt(
                f"the network of {plug.attachment.name}", self._plugging.restore(plug, present)
            )

    @staticmethod
    async def _attempt(what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (LinkError, OSError) as error:
            _log.error("%s is not restored: %s", what, error)

    async def _repair(self, found: set[Finding]) -> None:
        """Somebody changed the host's packet rules."""
        if Finding.DAMAGED in found:
            _log.warning("the packet rules of this VCH were changed by somebody else; restoring them")
            await self.reload()
        async with self._lock:
            await self._synchronize()

    @property
    def transactions(self) -> int:
        """How many sets of packet rules were applied: for diagnostics."""
        return self._firewall.transactions

    async def reload(self) -> None:
        """Replace the packet rules by what they should be, in one transaction."""
        self._firewall.forget()
        await self._translated(self._firewall.apply())

    async def close(self) -> None:
        """Let go of sockets. Bridges, taps and rules stay: the VMs run on."""
        if self._running_work:
            await asyncio.wait(self._running_work)
        await self._watcher.close()
        await self._servers.close()
        self._ports.close()

    async def purge(self) -> None:
        """Take every trace of this VCH off the host: for its deletion, when no container is left.

        Called again after a kill it finishes; the state files go with the VCH's directory.
        """
        await self._watcher.close()
        await self._servers.close()
        await self._translated(remove_traces(self._vch))

    # -- networks
    def list(self) -> builtins.list[Network]:
        return [self._message(entry) for entry in self._registry.entries.values()]

    def get(self, ref: str) -> Network:
        return self._message(self._registry.get(ref))

    def _message(self, entry: Entry) -> Network:
        network = Network()
        network.CopyFrom(entry.network)
        for plug in self._switch.on(entry.id):
            endpoint = plug.placed[entry.id].endpoint
            network.endpoints.append(
                NetworkEndpoint(
                    container=plug.attachment.container,
                    name=plug.attachment.name,
                    endpoint_id=endpoint.endpoint_id,
                    mac=endpoint.assigned_mac,
                    ipv4=endpoint.assigned_ipv4,
                    ipv6=endpoint.assigned_ipv6,
                )
            )
        return network

    async def create(self, network: Network) -> Network:
        return self._message(await self._finished(self._create(network)))

    async def _create(self, wanted: Network) -> Entry:
        async with self._lock, pool_lock():
            entry = self._registry.prepare(wanted, await asyncio.to_thread(self._links.routes))
            bridge = entry.network.bridge
            if entry.has_bridge and await asyncio.to_thread(self._links.alias, bridge) is not None:
                raise PortLayerError(Reason.NAME_IN_USE, f"interface {bridge} already exists on this host")
            entry.network.created_at = entry.network.created_at or time.time_ns()
            await asyncio.to_thread(self._store.save, entry.network)
            self._registry.add(entry)
            try:
                if entry.has_bridge:
                    await self._serve_names(entry)
                    await self._firewall.apply()
                    await self._raise_bridge(entry)
                    await self._synchronize()
            except BaseException:
                await self._take_down(entry)
                raise
        return entry

    async def _serve_names(self, entry: Entry) -> None:
        entry.dns_port = await self._servers.start(entry.id, entry.gateways())

    async def _raise_bridge(self, entry: Entry) -> None:
        wanted = BridgeLink(
            name=entry.network.bridge,
            alias=bridge_alias(self._vch, entry.id),
            mac=bridge_mac(entry),
            mtu=entry.options.mtu,
            addresses=entry.gateway_cidrs(),
            ipv6=6 in entry.pools,
        )
        await asyncio.to_thread(self._links.ensure_bridge, wanted)
        if not entry.network.internal or entry.network.builtin:
            changed = await asyncio.to_thread(self._links.ensure_forwarding, ipv6=wanted.ipv6)
            if changed:
                _log.warning("this host forwards packets from now on: %s", " ".join(changed))

    async def remove(self, ref: str) -> None:
        await self._finished(self._remove(ref))

    async def _remove(self, ref: str) -> None:
        async with self._lock:
            entry = self._registry.get(ref)
            name = entry.network.name
            if entry.network.builtin:
                raise PortLayerError(
                    Reason.NOT_SUPPORTED, f"{name} is a pre-defined network and cannot be removed"
                )
            users = [plug.attachment for plug in self._switch.on(entry.id)]
            if users:
                words = ", ".join(f'name:"{user.name}" id:"{user.container[:12]}"' for user in users)
                raise PortLayerError(
                    Reason.NETWORK_IN_USE,
                    f"error while removing network: network {name} has active endpoints ({words})",
                )
            await self._take_down(entry)

    async def _take_down(self, entry: Entry) -> None:
        """The file goes last: killed before that, the network is whole again after the next open()."""
        leases = {c: e[entry.id] for c, e in self._registry.leases.items() if entry.id in e}
        self._registry.remove(entry.id)  # at once: nobody may plug into it any more
        try:
            await self._servers.stop(entry.id)
            if entry.has_bridge:
                await asyncio.to_thread(self._links.remove, entry.network.bridge)
                await self._firewall.apply()
                await self._synchronize()
        except (LinkError, FirewallError):
            self._registry.add(entry)
            for container, endpoint in leases.items():
                self._registry.leases.setdefault(container, {})[entry.id] = endpoint
            raise
        await asyncio.to_thread(self._store.delete, entry.id)

    # -- addresses and ports
    def allocate(self, container: str, name: str, endpoint: Endpoint) -> Endpoint:
        """Fill ``assigned_*``; asked again for the same, the answer is the same.

        Raises:
            PortLayerError: NO_SUCH_NETWORK, ADDRESS_IN_USE; nothing is leased that was not before.
        """
        self._plugging.keep(container, endpoint.network)
        return self._registry.allocate(container, endpoint)

    def release(self, container: str, network: str | None = None) -> None:
        """Give addresses back. Those of an endpoint that is still plugged go when it is unplugged."""
        held = self._registry.leases.get(container, {})
        for network_id in tuple(held) if network is None else (network,):
            self._plugging.release(container, network_id)

    def reserve_ports(self, container: str, ports: Sequence[PortBinding]) -> builtins.list[PortBinding]:
        """All or none; the host's sockets are asked too. Kept until release_ports()."""
        leases = self._registry.leases.get(container, {})
        exit_ = preferred_endpoint(self._registry, leases.values(), 4)
        binding = "" if exit_ is None else exit_.options.host_binding
        wanted = []
        for port in ports:
            copy = PortBinding()
            copy.CopyFrom(port)
            copy.host_ip = port.host_ip or binding
            wanted.append(copy)
        return self._ports.reserve(container, wanted)

    def release_ports(self, container: str) -> None:
        self._ports.release(container)

    # -- plugging
    async def plug(self, attachment: Attachment) -> builtins.list[PluggedNic]:
        """Make the host's side of all endpoints, publish the ports and the names. Idempotent.

        Endpoints that are plugged and not named any more stay until unplug(): their NICs may still be in
        the VM.

        Raises:
            PortLayerError: what the container had before is still plugged, nothing more.
        """
        return await self._finished(self._plug(attachment))

    async def _plug(self, attachment: Attachment) -> builtins.list[PluggedNic]:
        plug = await self._plugging.plug(self._known(attachment))
        return plug.nics({endpoint.network for endpoint in attachment.endpoints})

    async def unplug(self, container: str, network: str | None = None) -> None:
        """Remove taps, names and published ports of a container, or of one endpoint. Idempotent."""
        await self._finished(self._plugging.unplug(container, network))

    def interfaces(self, attachment: Attachment) -> tuple[builtins.list[Interface], Resolver]:
        """What the guest must configure; names of interfaces it has already do not change."""
        known = self._known(attachment)
        placed = place(self._registry, known.endpoints)
        plugged = self._switch.find(attachment.container)
        names = plugged.interface_names if plugged is not None else {}
        return interfaces(placed, names), resolver(placed, attachment.resolver, self._host_resolver.read())

    def update_names(self, attachment: Attachment) -> None:
        """After a rename, or a change of aliases, links or DNS servers."""
        before = self._switch.find(attachment.container)
        if before is not None:
            self._directory.put(self._switch.rename(before, self._known(attachment)).client())

    # -- what follows from the state
    def _known(self, attachment: Attachment, *, strict: bool = True) -> Attachment:
        """The attachment with leased endpoints; not ``strict``: only those that have a lease.

        Raises:
            PortLayerError: NO_SUCH_NETWORK, or ADDRESS_IN_USE when a lease was given up and is gone.
        """
        leases = self._registry.leases.get(attachment.container, {})
        endpoints = [
            self._registry.allocate(attachment.container, endpoint)
            for endpoint in attachment.endpoints
            if strict or endpoint.network in leases
        ]
        return replace(attachment, endpoints=endpoints)

    def _bridges(self) -> builtins.list[Entry]:
        return [entry for entry in self._registry.entries.values() if entry.has_bridge]

    def _rules(self) -> Ruleset:
        plugs = self._switch.all()
        return Ruleset(
            vch=self._vch,
            bridges=tuple(entry.rules() for entry in self._bridges()),
            guests=tuple(guest for plug in plugs for guest in plug.guests()),
            published=tuple(port for plug in plugs for port in plug.published()),
            host_access=self._host_access,
        )

    async def _synchronize(self) -> None:
        """Make way in other firewalls of the host, and warn once of those where only their owner can."""
        await coexist.synchronize([entry.rules() for entry in self._bridges()], self._vch)
        drops = set(await coexist.foreign_drops(self._vch))
        for chain in sorted(drops - self._warned):
            _log.warning(
                "nftables chain %s drops packets by default: let the interfaces mr* pass there, "
                "or containers have no network",
                chain,
            )
        self._warned = drops

    def _upstreams(self) -> Sequence[str]:
        return self._dns or self._host_resolver.read().servers

    # -- running things to their end
    async def _finished(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(self._translated(work))
        self._running_work.add(task)
        task.add_done_callback(self._running_work.discard)
        return await asyncio.shield(task)

    @staticmethod
    async def _translated(work: Awaitable[T]) -> T:
        try:
            return await work
        except (LinkError, FirewallError) as error:
            raise PortLayerError(Reason.UNSPECIFIED, f"host network: {error}") from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = Reason.NO_SPACE if full else Reason.UNSPECIFIED
            raise PortLayerError(reason, f"host network: {error}") from error
