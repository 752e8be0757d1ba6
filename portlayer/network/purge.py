"""Removing all that a VCH has on a host, whether its port layer lives or not."""

from __future__ import annotations

import asyncio

from portlayer.network.coexist import synchronize
from portlayer.network.firewall import load
from portlayer.network.links import Links
from portlayer.network.nft import render_removal

__all__ = ["purge"]


async def purge(vch_id: str) -> list[str]:
    """Taps before bridges before rules: nothing is ever reachable unfiltered. Idempotent.

    Returns the interfaces that are gone. Forwarding sysctls stay: others may rely on them by now.

    Raises:
        LinkError, FirewallError: what could not be removed.
    """
    links = Links(vch_id)
    ours = await asyncio.to_thread(links.ours)
    names = sorted(ours, key=lambda name: (":tap:" not in ours[name], name))
    for name in names:
        await asyncio.to_thread(links.remove, name)
    await load(render_removal(vch_id))
    await synchronize([], vch_id)
    return names
