"""`docker logs`: the journal and its rotated files, shaped, and followed if wanted.

Order as in Docker: ``tail`` chooses the last lines, ``since`` and ``until``
filter what is left. Following ends when the container no longer runs (nor
waits for its automatic restart) and everything has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.execution.states import Status
from portlayer.journal.mark import decode_mark, encode_mark
from portlayer.journal.reader import JournalReader, Snapshot
from portlayer.journal.shape import Chunk, Shaper
from portlayer.journal.tail import TailStart, find_tail
from portlayer.journal.watcher import Watch
from portlayer.portlayer_pb2 import LogRecord, LogsRequest, Reason, WaitRequest

__all__ = ["read_logs"]

_STDOUT, _STDERR = 1, 2


async def read_logs(house: House, container: Container, request: LogsRequest) -> AsyncIterator[LogRecord]:
    """
    Raises:
        PortLayerError: NOT_SUPPORTED when the container's log driver is ``none``.
    """
    if container.spec.log.driver == "none":
        raise PortLayerError(Reason.NOT_SUPPORTED, "configured logging driver does not support reading")
    streams = {_STDOUT} if request.stdout else set()
    streams |= {_STDERR} if request.stderr else set()
    if not streams:
        raise PortLayerError(Reason.UNSPECIFIED, "you must choose at least one stream")
    journal = house.rooms.hypervisor.journal(container.id)
    with ExitStack() as stack:
        watch = stack.enter_context(house.watcher.watch(journal.parent)) if request.follow else None
        snapshot = await asyncio.to_thread(Snapshot.open, journal)
        stack.callback(snapshot.close)
        tail = await _start(snapshot, request, streams)
        reader = JournalReader(snapshot, tail.position)
        stack.callback(reader.close)
        stack.enter_context(house.reading(container, reader))
        shaper = Shaper(
            streams=streams, lines=request.lines, since=request.since, until=request.until, tail=tail
        )
        if request.follow and not request.mark:
            places = {stream: tail.first.get(stream, (tail.position, 0)) for stream in streams}
            yield LogRecord(mark=encode_mark(places, snapshot))
        async for chunk in _chunks(house, container, request, reader, shaper, watch):
            mark = encode_mark(chunk.next, reader.snapshot) if request.follow else b""
            yield LogRecord(stream=chunk.stream, time=chunk.time, data=chunk.data, lost=chunk.lost, mark=mark)


async def _start(snapshot: Snapshot, request: LogsRequest, streams: set[int]) -> TailStart:
    if request.mark:
        try:
            return decode_mark(request.mark, snapshot)
        except ValueError as error:
            raise PortLayerError(Reason.UNSPECIFIED, str(error)) from error
    lines = request.tail
    if lines < 0:
        return TailStart(snapshot.start)
    if lines == 0:
        return TailStart(snapshot.end)
    return await asyncio.to_thread(find_tail, snapshot, lines, streams)


async def _chunks(  # noqa: PLR0917
    house: House,
    container: Container,
    request: LogsRequest,
    reader: JournalReader,
    shaper: Shaper,
    watch: Watch | None,
) -> AsyncIterator[Chunk]:
    while True:
        over = container.status is not Status.RESTARTING and not container.live
        more = watch is not None or reader.within_snapshot()
        entries = await asyncio.to_thread(reader.read) if more else []
        if entries:
            for chunk in shaper.feed(entries, reader.file):
                yield chunk
        elif watch is None or over or _too_late(house, request):
            break
        else:
            await _news(house, container, request, watch)
        if watch is not None and shaper.past_until:
            break
    for chunk in shaper.finish():
        yield chunk


def _too_late(house: House, request: LogsRequest) -> bool:
    return bool(request.until) and house.clock.now() > request.until


async def _news(house: House, container: Container, request: LogsRequest, watch: Watch) -> None:
    """Wait until the journal grew, the run ended, or ``until`` is past."""
    ended = container.arm_wait(WaitRequest.NOT_RUNNING)
    grown = asyncio.ensure_future(watch.changed())
    either: set[asyncio.Future[Any]] = {ended, grown}
    limit = max(0.0, (request.until - house.clock.now()) / 1e9) if request.until else None
    try:
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        grown.cancel()
