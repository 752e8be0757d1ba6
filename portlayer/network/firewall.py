"""Applying the rules of one VCH: one transaction at a time, many changes per transaction.

Starting twenty containers asks for twenty new rule sets within milliseconds.
Each caller needs to know that a rule set *with its change* is in the kernel;
one transaction that began after the change serves all of them. It holds what has
changed since the last one; all of the rules at first, and when in doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from portlayer.network.nft import render, render_change
from portlayer.network.ruleset import Ruleset

__all__ = ["Firewall", "FirewallError", "load"]

_log = logging.getLogger(__name__)

_TIMEOUT = 60.0


class FirewallError(Exception):
    """nft refused a transaction; nothing of it was applied. The message holds nft's words."""


async def load(text: str) -> None:
    """Run one nft transaction."""
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            "-f",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise FirewallError("nft is not installed (Debian package nftables)") from error
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, errors = await process.communicate(text.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise FirewallError(f"nft did not finish within {_TIMEOUT:.0f} s") from error
    if process.returncode != 0:
        raise FirewallError(f"nft: {errors.decode(errors='replace').strip()[:2000]}")


class Firewall:
    def __init__(self, wanted: Callable[[], Ruleset]) -> None:
        self._wanted = wanted  # the rules as they should be now
        self._lock = asyncio.Lock()
        self._asked = 0
        self._applied = 0
        self._present: Ruleset | None = None  # what the kernel has; None: not known
        self._doubts = 0
        self.transactions = 0  # for tests and diagnostics

    @property
    def dirty(self) -> bool:
        """A transaction failed or is not finished: the kernel may not have the wanted rules."""
        return self._applied < self._asked

    def forget(self) -> None:
        """Somebody else changed the kernel's rules: the next transaction replaces all of ours."""
        self._present = None
        self._doubts += 1

    async def apply(self) -> None:
        """Return when rules as wanted now, or later, are in the kernel.

        Raises:
            FirewallError: the former rules are still in force.
        """
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._applied >= mine:
                return
            serves, wanted = self._asked, self._wanted()
            await self._replace(wanted)
            self._applied = serves

    async def _replace(self, wanted: Ruleset) -> None:
        present, self._present = self._present, None  # not known, should the transaction be cut off
        doubts = self._doubts
        if present is not None:
            try:
                await self._load(render_change(present, wanted))
            except FirewallError as error:  # somebody has changed the sets
                _log.warning("replacing all packet rules, for a change failed: %s", error)
                present = None
        if present is None:
            await self._load(render(wanted))
        if doubts == self._doubts:
            self._present = wanted

    async def _load(self, text: str) -> None:
        if text:
            self.transactions += 1
            await load(text)
