"""`docker attach`: the main process's output from its journal, input through its channel.

Output follows the journal from the place where it ended when the attach was
made (or from its start), so a reader that falls behind costs nobody anything and
an attach made before the start loses nothing. It ends behind the EXITED record
of the run, or when the run ended without one.

Chunks carry marks, and STDIN_ACK says how much input the process has been sent:
with both a client's attach goes on behind a restart of the port layer.
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
from portlayer.interaction.input import InputBuffer
from portlayer.interaction.stdin import StdinPumps
from portlayer.journal.mark import END, decode_mark, encode_mark
from portlayer.journal.reader import JournalReader, Position, Snapshot
from portlayer.journal.records import Entry, Kind
from portlayer.journal.shape import Shaper
from portlayer.journal.tail import TailStart
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
        # A run that began before a restart of ours may have ended meanwhile.
        resumed = bool(opening.mark) and container.status is not Status.CREATED
        ended = container.arm_wait(WaitRequest.NOT_RUNNING if resumed else WaitRequest.NEXT_EXIT)
        stack.callback(ended.cancel)
        watch = stack.enter_context(house.watcher.watch(journal.parent))
        snapshot = await asyncio.to_thread(Snapshot.open, journal)
        stack.callback(snapshot.close)
        start = _start(snapshot, opening, streams)
        end = start.first.pop(END, (snapshot.end, 0))
        reader = JournalReader(snapshot, start.position)
        stack.callback(reader.close)
        stack.enter_context(house.reading(container, reader))
        acks: _Acks | None = None
        if opening.stdin:
            buffer = pumps.buffer(container)
            if opening.HasField("stdin_offset"):
                buffer.resume(opening.stdin_offset)
            acks = _Acks(buffer, opening.stdin_offset if opening.HasField("stdin_offset") else None)
            writer = asyncio.create_task(_copy_input(pumps, container, inputs))
            stack.callback(writer.cancel)
        places = {stream: start.first.get(stream, (start.position, 0)) for stream in streams} | {END: end}
        yield OutputChunk(stream=OutputChunk.READY, mark=encode_mark(places, snapshot))
        shaper = Shaper(streams=streams, tail=start)
        async for chunk in _output(reader, shaper, watch, ended, end, acks):
            yield chunk


def _start(snapshot: Snapshot, opening: AttachOpen, streams: set[int]) -> TailStart:
    if opening.mark:
        try:
            return decode_mark(opening.mark, snapshot)
        except ValueError as error:
            raise PortLayerError(Reason.UNSPECIFIED, str(error)) from error
    return TailStart(snapshot.start if opening.from_start else snapshot.end)


class _Acks:
    """What a client is told of its input: first where it begins, then up to where the process has it."""

    def __init__(self, buffer: InputBuffer, begin: int | None) -> None:
        self._buffer = buffer
        self._position = buffer.position
        self._begin = begin
        self._told: int | None = None
        self._seen: int | None = None  # of the buffer's `accepted`

    def next(self) -> int | None:
        self._seen = accepted = self._buffer.accepted
        if self._told is None:
            self._told = self._begin if self._begin is not None else self._buffer.offset(self._position)
            return self._told
        if accepted is None or accepted <= self._told:
            return None
        self._told = accepted
        return accepted

    async def news(self) -> None:
        await self._buffer.moved(self._seen)


async def _copy_input(pumps: StdinPumps, container: Container, inputs: AsyncIterator[InputChunk]) -> None:
    async for chunk in inputs:
        buffer = pumps.buffer(container)
        if chunk.data:
            await buffer.write(chunk.data)
        if chunk.close:
            buffer.close()
            return


async def _output(  # noqa: PLR0917
    reader: JournalReader,
    shaper: Shaper,
    watch: Watch,
    ended: asyncio.Future[WaitReply],
    end: tuple[Position, int],
    acks: _Acks | None,
) -> AsyncIterator[OutputChunk]:
    while True:
        while acks is not None and (offset := acks.next()) is not None:
            yield OutputChunk(stream=OutputChunk.STDIN_ACK, offset=offset)
        over = ended.done()
        entries = await asyncio.to_thread(reader.read)
        last = _end_of_run(entries, reader.file, end[0])
        shown = entries if last is None else entries[: last + 1]
        for chunk in shaper.feed(shown, reader.file):
            yield OutputChunk(
                stream=OutputChunk.STDOUT if chunk.stream == 1 else OutputChunk.STDERR,
                data=chunk.data,
                mark=encode_mark({**chunk.next, END: end}, reader.snapshot),
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
        await _news(watch, ended, acks)


def _end_of_run(entries: list[Entry], file: int, end: Position) -> int | None:
    """The index of the first EXITED or FAILED that was written after the attach."""
    for index, entry in enumerate(entries):
        if entry.kind in (Kind.EXITED, Kind.FAILED) and Position(file, entry.offset) >= end:
            return index
    return None


async def _news(watch: Watch, ended: asyncio.Future[WaitReply], acks: _Acks | None) -> None:
    """Wait until the journal grew, the run ended, or there is something to acknowledge."""
    hints: list[asyncio.Future[Any]] = [asyncio.ensure_future(watch.changed())]
    if acks is not None:
        hints.append(asyncio.ensure_future(acks.news()))
    try:
        await asyncio.wait({ended, *hints}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for hint in hints:
            hint.cancel()
