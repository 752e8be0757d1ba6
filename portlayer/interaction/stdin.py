"""Standard input of a container's main process: one buffer and one pump a run.

However many clients are attached with stdin, the guest sees one stream of bytes.
The pump waits for the process to run, so input written before the start is kept
(bounded) and delivered; it survives lost connections and ends with the run.
"""

from __future__ import annotations

import asyncio
import logging

from google.protobuf.message import DecodeError

from portlayer.channel import ChannelClosed, ChannelLost, TetherError
from portlayer.execution.container import Container, Run
from portlayer.execution.house import House
from portlayer.execution.rooms import Channel, GuestStream
from portlayer.execution.states import Status
from portlayer.interaction.input import InputBuffer
from tether.tether_pb2 import AttachOutput, AttachRequest, Empty

__all__ = ["StdinPumps"]

log = logging.getLogger(__name__)
_READING = (Status.RUNNING, Status.PAUSED, Status.STOPPING)
_GONE = (Status.REMOVING, Status.DEAD)


class StdinPumps:
    """The pumps of all containers that somebody writes to."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._buffers: dict[str, InputBuffer] = {}

    def buffer(self, container: Container) -> InputBuffer:
        """The input of the container's present (or next) run."""
        buffer = self._buffers.get(container.id)
        if buffer is None:
            buffer = self._buffers[container.id] = InputBuffer()
            task = asyncio.create_task(self._pump(container, buffer), name=f"stdin of {container.id[:12]}")
            self._house.keep_background(task)
        return buffer

    async def _pump(self, container: Container, buffer: InputBuffer) -> None:
        try:
            run = await self._wait_for_run(container)
            if run is not None and run.channel is not None:
                await _deliver(container, run.channel, buffer)
        finally:
            buffer.end()
            del self._buffers[container.id]

    async def _wait_for_run(self, container: Container) -> Run | None:
        while container.status not in _READING:
            if container.status in _GONE:
                return None
            await container.moved()
            if self._house.registry.find(container.id) is None:
                return None
        return container.run


async def _deliver(container: Container, channel: Channel, buffer: InputBuffer) -> None:
    """Until the process has ended."""
    while True:
        try:
            async with await channel.stream("Attach", AttachRequest(stdin=True)) as stream:
                await stream.response(Empty)
                if await _session(stream, buffer):
                    return
        except ChannelLost:
            continue  # the next stream() waits for the next session
        except ChannelClosed:
            return
        except (TetherError, DecodeError) as error:
            log.warning("container %s: its stdin is lost: %s", container.id[:12], error)
            return


async def _session(stream: GuestStream, buffer: InputBuffer) -> bool:
    """One connection's worth; true when the process is over."""
    feeder = asyncio.create_task(buffer.feed(stream))
    try:
        while body := await stream.receive():
            output = AttachOutput.FromString(body)
            if output.stream == AttachOutput.STDIN_ACK:
                buffer.acknowledge(output.offset)
            elif output.stream == AttachOutput.EXITED:
                return True
        return True
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
