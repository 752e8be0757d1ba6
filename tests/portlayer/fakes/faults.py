"""Faults that a test asks for, and time that moves only when it says so."""

from __future__ import annotations

import asyncio

from portlayer.hypervisor.base import (
    HypervisorError,
)


class Injected(HypervisorError):
    """A fault that a test asked for."""


class Faults:
    """Counts the rooms' calls; makes the one a test names fail."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.fail_on: dict[str, Exception] = {}

    def start(self, fail_at: int | None = None) -> None:
        self.calls = []
        self.fail_at = fail_at

    def __call__(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at is not None and len(self.calls) - 1 == self.fail_at:
            raise Injected(f"injected into {name}")
        if name in self.fail_on:
            raise self.fail_on[name]


class Clock:
    """Time that moves only when a test says so; ``now`` grows by a little with every look."""

    def __init__(self) -> None:
        self.time = 1_700_000_000 * 10**9
        self.sleeps: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.asked = asyncio.Event()

    def now(self) -> int:
        self.time += 1000
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((seconds, future))
        self.asked.set()
        await future

    async def slept(self) -> float:
        """Wait until somebody sleeps, then wake all sleepers; how long the last wanted to."""
        await self.asked.wait()
        self.asked.clear()
        for seconds, future in self._sleepers:
            self.time += int(seconds * 1e9)
            if not future.done():
                future.set_result(None)
        self._sleepers.clear()
        return self.sleeps[-1]
