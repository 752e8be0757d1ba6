"""A guest's memory and device state to a file and back, by QEMU's own migration.

The state goes through a descriptor that we open: QEMU itself may open no such
file. It refuses to migrate a VM that has a VMDK open, even read-only; that refusal
is passed on in its own words.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from portlayer.hypervisor.base import HypervisorError, NotSupported
from portlayer.hypervisor.qemu.monitor import Monitor, MonitorError

__all__ = ["Migration", "restore", "saved"]

TIMEOUT = 300.0
_FD = "memory"


class Migration:
    """How the one migration of a run goes, as MIGRATION events tell."""

    def __init__(self) -> None:
        self._outcome: asyncio.Future[str] | None = None

    def begin(self) -> asyncio.Future[str]:
        self._outcome = asyncio.get_running_loop().create_future()
        self._outcome.add_done_callback(_seen)  # its waiter may have left already
        return self._outcome

    def event(self, status: str) -> None:
        if status in ("completed", "failed", "cancelled") and self._outcome and not self._outcome.done():
            self._outcome.set_result(status)

    def fail(self, error: HypervisorError) -> None:
        if self._outcome and not self._outcome.done():
            self._outcome.set_exception(error)


def _seen(outcome: asyncio.Future[str]) -> None:
    if not outcome.cancelled():
        outcome.exception()


@asynccontextmanager
async def saved(monitor: Monitor, migration: Migration, path: Path, *, running: bool) -> AsyncIterator[None]:
    """Write the state to the new file ``path``; inside, the guest stands still. Afterwards it goes on.

    Raises:
        NotSupported: QEMU cannot migrate this VM.
        HypervisorError: it could not write the state. The guest goes on in both cases.
    """
    outcome = await _prepare(monitor, migration)
    await _give(monitor, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        # As fast as the disk takes it; the guest is stopped as soon as QEMU has looked at its memory once.
        await monitor.execute("migrate-set-parameters", max_bandwidth=1 << 40, downtime_limit=2_000_000)
        await monitor.execute("migrate", uri=f"fd:{_FD}")
    except MonitorError as error:
        raise NotSupported(f"this VM's memory cannot be saved: {error.reason}") from error
    try:
        async with asyncio.timeout(TIMEOUT):
            status = await outcome
        if status != "completed":
            answer = await monitor.execute("query-migrate")
            raise HypervisorError(
                f"memory not saved: {status}: {answer.get('error-desc', 'no reason given')}"
            )
        await _finalized(monitor)
        yield
    except TimeoutError as error:
        await monitor.execute("migrate_cancel")
        raise HypervisorError(f"memory not saved in {TIMEOUT:.0f} s") from error
    finally:
        if running and monitor.connected:
            await monitor.execute("cont")


async def restore(monitor: Monitor, migration: Migration, path: Path) -> None:
    """Fill a QEMU that waits for its state (``-incoming defer``) from ``path``.

    Raises:
        HypervisorError: it ends over it; its output says why.
    """
    outcome = await _prepare(monitor, migration)
    await _give(monitor, path, os.O_RDONLY)
    await monitor.execute("migrate-incoming", uri=f"fd:{_FD}")
    async with asyncio.timeout(TIMEOUT):
        status = await outcome
    if status != "completed":
        raise HypervisorError(f"saved memory not restored: {status}")


async def _finalized(monitor: Monitor) -> None:
    """The event comes a moment before QEMU is ready to go on, and nothing announces that moment."""
    while (await monitor.execute("query-status"))["status"] == "finish-migrate":  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def _prepare(monitor: Monitor, migration: Migration) -> asyncio.Future[str]:
    await monitor.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    return migration.begin()


async def _give(monitor: Monitor, path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        await monitor.execute("getfd", fd=descriptor, fdname=_FD)
    finally:
        os.close(descriptor)
