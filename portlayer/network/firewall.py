"""Applying the rules of one VCH: one transaction at a time, many changes per transaction.

Starting twenty containers asks for twenty new rule sets within milliseconds.
Each caller needs to know that a rule set *with its change* is in the kernel;
one transaction that began after the change serves all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Firewall", "FirewallError", "load"]

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
    def __init__(self, render: Callable[[], str]) -> None:
        self._render = render  # the wanted rules as of now
        self._lock = asyncio.Lock()
        self._asked = 0
        self._applied = 0
        self.transactions = 0  # for tests and diagnostics

    @property
    def dirty(self) -> bool:
        """A transaction failed or is not finished: the kernel may not have the wanted rules."""
        return self._applied < self._asked

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
            serves = self._asked
            text = self._render()
            self.transactions += 1
            await load(text)
            self._applied = serves
