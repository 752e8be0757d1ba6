"""A container's disk as it is at one moment, for a diff or a commit.

Stopped, that is the disk itself, and the container's lock keeps it from being
started meanwhile. Running, the guest is asked to freeze its file systems (all
that it has in memory is on the disk then), the disk's file is copied, and the
guest lets go again; it does so by itself when we die in between. With ``pause``
the VM stands still while that happens, as ``docker commit`` does by default.

A container that somebody has paused cannot be asked to freeze: refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from portlayer.channel import ChannelError
from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.guest import ask, running_channel
from portlayer.execution.house import House
from portlayer.execution.power import Power
from portlayer.execution.rooms import Channel
from portlayer.execution.states import STOPPED, Status, require
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Empty, FreezeRequest

__all__ = ["disk_of"]

log = logging.getLogger(__name__)
_NEWS = 2.0  # seconds that the word of an end may be on its way
_LONGEST = 120  # seconds that the guest stays frozen when nobody thaws it


@asynccontextmanager
async def disk_of(
    house: House, power: Power, container: Container, *, call: str, pause: bool = False
) -> AsyncIterator[Path | None]:
    """A copy of the disk, or None: the disk itself may be opened inside the block.

    Raises:
        PortLayerError: PAUSED, REMOVAL_IN_PROGRESS, GUEST_LOST, NO_SPACE, …
    """
    async with AsyncExitStack() as stack:
        if container.status in STOPPED or container.status is Status.RESTARTING:
            await stack.enter_async_context(container.lock)
            if container.status in STOPPED or container.status is Status.RESTARTING:
                yield None
                return
            await stack.aclose()  # it was started while we waited for the lock
        async with AsyncExitStack() as still:
            try:
                await _freeze(house, container, still, call)
            except PortLayerError:
                if not await _ends(house, container):
                    raise
                await still.aclose()
                await stack.enter_async_context(container.lock)
                require(container.name, call, container.status, (*STOPPED, Status.RESTARTING))
                yield None
                return
            if pause:
                await power.pause(container)
                still.push_async_callback(_unpause, power, container)
            picture = await stack.enter_async_context(house.rooms.disks.picture(container.id))
        yield picture


async def _ends(house: House, container: Container) -> bool:
    """Whether the container is ending, and has ended when this returns."""
    run = container.run
    if run is None:
        return True
    news = [asyncio.ensure_future(event.wait()) for event in (run.reported, run.ended)]
    try:
        await asyncio.wait(news, timeout=_NEWS, return_when=asyncio.FIRST_COMPLETED)
        if not run.reported.is_set() and not run.ended.is_set():
            return False
        async with asyncio.timeout(house.timeouts.power_off):
            await run.ended.wait()
    except TimeoutError:
        return False
    finally:
        for task in news:
            task.cancel()
    return True


async def _freeze(house: House, container: Container, still: AsyncExitStack, call: str) -> None:
    channel = running_channel(container, call)
    request = FreezeRequest(thaw_after=_LONGEST * 1_000_000_000)
    timeout = house.timeouts.call
    still.push_async_callback(_thaw, container, channel, timeout)
    await ask(container, "Freeze", request, Empty, call=call, timeout=timeout, repeat=False)


async def _thaw(container: Container, channel: Channel, timeout: float) -> None:
    """A guest that cannot be told thaws by itself; one that ended has nothing to thaw."""
    try:
        await channel.call("Thaw", Empty(), Empty, timeout=timeout)
    except ChannelError as error:
        log.warning("container %s: not thawed, it will do so by itself: %s", container.id[:12], error)


async def _unpause(power: Power, container: Container) -> None:
    try:
        await power.unpause(container)
    except PortLayerError as error:  # somebody else woke it, or it ended
        if error.reason != Reason.NOT_RUNNING:
            raise
