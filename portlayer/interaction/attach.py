"""`docker attach`: the main process's output from its journal, input through its channel.

Output follows the journal from the place where it ended when the attach was
made (or from its start), so a reader that falls behind costs nobody anything and
an attach made before the start loses nothing. It ends behind the EXITED record
of the run, or when the run ended without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.execution.states import Status, require
from portlayer.interaction.stdin import StdinPumps
from portlayer.journal.reader import JournalReader, Position, Snapshot
from portlayer.journal.records import Entry, Kind
from portlayer.journal.shape import Shaper
from portlayer.journal.verdict import main_state
from portlayer.journal.watcher import Watch
from portlayer.portlayer_pb2 import AttachOpen, InputChunk, OutputChunk, Reason, WaitReply, WaitRequest

__all__ = ["attach"]

_ATTACHABLE = (
    Status.CREATED,
    Status.EXITED,
    Status.STARTING,
    Status.RUNNING,
    Status.PAUSED,
    Status.STOPPING,
    Status.RESTARTING,
)


async def attach(
    house: House,
    pumps: StdinPumps,
    container: Container,
    opening: AttachOpen,
    inputs: AsyncIterator[InputChunk],
) -> AsyncIterator[OutputChunk]:
    """READY first: from there on nothing is lost. EXITED last."""
    require(container.name, "attach to", container.status, _ATTACHABLE)
    if opening.stdin and not container.spec.process.open_stdin:
        raise PortLayerError(Reason.UNSPECIFIED, f"container {container.name} has no stdin to attach to")
    journal = house.rooms.hypervisor.journal(container.id)
    streams = {1} if opening.stdout else set()
    streams |= {2} if opening.stderr else set()
    with ExitStack() as stack:
        ended = container.arm_wait(WaitRequest.NEXT_EXIT)
        stack.callback(ended.cancel)
        watch = stack.enter_context(house.watcher.watch(journal.parent))
        snapshot = await asyncio.to_thread(Snapshot.open, journal)
        stack.callback(snapshot.close)
        end = snapshot.end
        reader = JournalReader(snapshot, snapshot.start if opening.from_start else end)
        stack.callback(reader.close)
        stack.enter_context(house.reading(container, reader))
        if opening.stdin:
            writer = asyncio.create_task(_copy_input(pumps, container, inputs))
            stack.callback(writer.cancel)
        yield OutputChunk(stream=OutputChunk.READY)
        shaper = Shaper(streams=streams)
        async for chunk in _output(reader, shaper, watch, ended, end):
            yield chunk


async def _copy_input(pumps: StdinPumps, container: Container, inputs: AsyncIterator[InputChunk]) -> None:
    async for chunk in inputs:
        buffer = pumps.buffer(container)
        if chunk.data:
            await buffer.write(chunk.data)
        if chunk.close:
            buffer.close()
            return


async def _output(
    reader: JournalReader, shaper: Shaper, watch: Watch, ended: asyncio.Future[WaitReply], end: Position
) -> AsyncIterator[OutputChunk]:
    while True:
        over = ended.done()
        entries = await asyncio.to_thread(reader.read)
        last = _end_of_run(entries, reader.file, end)
        shown = entries if last is None else entries[: last + 1]
        for chunk in shaper.feed(shown, reader.file):
            yield OutputChunk(
                stream=OutputChunk.STDOUT if chunk.stream == 1 else OutputChunk.STDERR, data=chunk.data
            )
        if last is not None:
            state = main_state(entries[last])
            code = state.exit_code & 0xFF if state is not None else 0
            yield OutputChunk(stream=OutputChunk.EXITED, exit_code=code)
            return
        if entries:
            continue
        if over:
            yield OutputChunk(stream=OutputChunk.EXITED, exit_code=ended.result().exit_code)
            return
        await _news(watch, ended)


def _end_of_run(entries: list[Entry], file: int, end: Position) -> int | None:
    """The index of the first EXITED or FAILED that was written after the attach."""
    for index, entry in enumerate(entries):
        if entry.kind in (Kind.EXITED, Kind.FAILED) and Position(file, entry.offset) >= end:
            return index
    return None


async def _news(watch: Watch, ended: asyncio.Future[WaitReply]) -> None:
    grown = asyncio.ensure_future(watch.changed())
    either: set[asyncio.Future[Any]] = {ended, grown}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        grown.cancel()
