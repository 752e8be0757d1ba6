"""Plugging containers in and out: taps, rules, names and old flows, in the right order.

Rules are in the kernel before a tap is connected; a tap is gone before its
rules are. A plug that fails takes back what it did and leaves what was there.
Calls for one container come one after the other, those for several share
firewall transactions.
"""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakValueDictionary

from portlayer.network import conntrack
from portlayer.network.attachment import Attachment
from portlayer.network.firewall import Firewall, FirewallError
from portlayer.network.links import LinkError, Links, TapLink
from portlayer.network.names import Directory
from portlayer.network.registry import Registry
from portlayer.network.switch import Plug, Switch

__all__ = ["Plugging"]

_log = logging.getLogger(__name__)


class Plugging:
    def __init__(
        self, *, registry: Registry, switch: Switch, links: Links, firewall: Firewall, directory: Directory
    ) -> None:
        self._registry = registry
        self._switch = switch
        self._links = links
        self._firewall = firewall
        self._directory = directory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._doomed: set[tuple[str, str]] = set()  # (container, network) released while still plugged

    def _lock(self, container: str) -> asyncio.Lock:
        return self._locks.setdefault(container, asyncio.Lock())

    async def plug(self, attachment: Attachment) -> Plug:
        """``attachment`` has leased endpoints.

        Raises:
            PortLayerError, LinkError, FirewallError: what was plugged before still is, nothing more.
        """
        async with self._lock(attachment.container):
            before = self._switch.find(attachment.container)
            plug = self._switch.plug(attachment)
            try:
                await self._raise(before, plug)
                await _forget_flows(before, plug)
            except BaseException:
                self._switch.put(attachment.container, before)
                await self._retreat(before, plug)
                raise
            self._directory.put(plug.client())
            return plug

    async def _raise(self, before: Plug | None, plug: Plug) -> None:
        """Taps are made while nft runs, and connected only when the rules are in force."""
        taps = self._switch.links(plug)
        changed = before is None or before.rules() != plug.rules()
        outcomes = await asyncio.gather(
            self._firewall.apply() if changed else asyncio.sleep(0),
            asyncio.to_thread(self._links.create_taps, taps),
            return_exceptions=True,  # both have ended before anything is taken back
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        await asyncio.to_thread(self._links.connect_taps, taps)

    async def _retreat(self, before: Plug | None, plug: Plug) -> None:
        """The first failure is what the caller hears."""
        kept = before.tap_names() if before is not None else set()
        try:
            await self._remove_taps(plug.tap_names() - kept)
            await self._firewall.apply()
        except (LinkError, FirewallError) as error:
            _log.error("taking back the network of %s: %s", plug.attachment.name, error)

    async def _remove_taps(self, names: set[str]) -> None:
        for tap in sorted(names):
            await asyncio.to_thread(self._links.remove, tap)

    async def restore(self, plug: Plug, present: dict[str, str]) -> None:
        """Taps of a running container after a restart; the rules are in force already."""
        taps: list[TapLink] = self._switch.links(plug)
        for tap in taps:
            if tap.name not in present:
                _log.warning("%s had lost its tap %s", plug.attachment.name, tap.name)
        await asyncio.to_thread(self._links.create_taps, taps)
        await asyncio.to_thread(self._links.connect_taps, taps)

    async def unplug(self, container: str, network: str | None) -> None:
        """One endpoint or all. Idempotent: called again after a failure it finishes.

        Raises:
            LinkError, FirewallError
        """
        async with self._lock(container):
            before = self._switch.find(container)
            if before is None or (network is not None and network not in before.placed):
                if self._firewall.dirty:
                    await self._firewall.apply()
                return
            after = before.without(network) if network is not None else None
            if after is not None and not after.placed:
                after = None
            self._directory.drop(container)
            if after is not None:
                self._directory.put(after.client())
            await self._remove_taps(before.tap_names() - (after.tap_names() if after is not None else set()))
            self._switch.put(container, after)
            self._release_doomed(container)
            await self._firewall.apply()
            await _forget_flows(before, after)

    # -- addresses
    def release(self, container: str, network: str) -> None:
        """Give an address back; that of a plugged endpoint only when it is unplugged, for it is in use."""
        if self._switch.is_plugged(container, network):
            self._doomed.add((container, network))
        else:
            self._registry.release(container, network)

    def keep(self, container: str, network: str) -> None:
        """It is wanted again."""
        self._doomed.discard((container, network))

    def _release_doomed(self, container: str) -> None:
        for owner, network in list(self._doomed):
            if owner == container and not self._switch.is_plugged(owner, network):
                self._doomed.discard((owner, network))
                self._registry.release(owner, network)


async def _forget_flows(before: Plug | None, after: Plug | None) -> None:
    """Those of UDP ports that lead elsewhere now."""
    old, new = (plug.ports() if plug is not None else set() for plug in (before, after))
    changed = {(protocol, port) for protocol, port, _ in old ^ new if protocol != "tcp"}
    if changed:
        await asyncio.to_thread(conntrack.forget_ports, changed)
