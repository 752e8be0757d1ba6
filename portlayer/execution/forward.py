"""Log driver ``syslog``: each line of a container's journal goes on to a syslog server.

The journal is the buffer: nobody waits for the server, and while it is away
nothing is lost that rotation leaves. How far we have come is kept beside the
journal (``forwarded.json``), so a port layer that restarts goes on there; lines
after the last note are sent twice rather than never.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.execution.states import Status
from portlayer.journal.reader import JournalReader, Position, Snapshot
from portlayer.journal.shape import Shaper
from portlayer.journal.watcher import Watch
from portlayer.portlayer_pb2 import LogConfig, Reason, WaitRequest
from portlayer.syslog.message import Source, message
from portlayer.syslog.sink import Sink, connect

__all__ = ["Forwarder"]

log = logging.getLogger(__name__)
NOTE = "forwarded.json"
_NAME = "{{.Name}}"
_LAUNCH_CODE = 128
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0


class Forwarder:
    def __init__(self, house: House) -> None:
        self._house = house
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def check(self, container: Container) -> None:
        """Before a start: is the server there?

        Raises:
            PortLayerError: LAUNCH_FAILED with dockerd's words.
        """
        if container.spec.log.driver != "syslog":
            return
        try:
            (await _connect(container.spec.log)).close()
        except OSError as error:
            words = f"failed to create task for container: failed to initialize logging driver: {error}"
            raise PortLayerError(Reason.LAUNCH_FAILED, words, exit_code=_LAUNCH_CODE) from error

    def begin(self, container: Container) -> None:
        """Send what has not been sent, until the container has ended. No error when that goes on already."""
        if container.spec.log.driver != "syslog" or container.id in self._tasks:
            return
        task = asyncio.create_task(self._forward(container), name=f"syslog {container.id[:12]}")
        self._tasks[container.id] = task
        self._house.keep_background(task)

        def done(ended: asyncio.Task[None]) -> None:
            del self._tasks[container.id]
            if not ended.cancelled() and ended.exception() is None and container.live:
                self.begin(container)  # it was started again while the last look was taken

        task.add_done_callback(done)

    async def _forward(self, container: Container) -> None:
        journal = self._house.rooms.hypervisor.journal(container.id)
        with ExitStack() as stack:
            watch = stack.enter_context(self._house.watcher.watch(journal.parent))
            snapshot = await asyncio.to_thread(Snapshot.open, journal)
            stack.callback(snapshot.close)
            reader = JournalReader(snapshot, _place(snapshot, journal.with_name(NOTE)))
            stack.callback(reader.close)
            stack.enter_context(self._house.reading(container, reader))
            delivery = _Delivery(container, watch)
            stack.callback(delivery.close)
            shaper = Shaper(streams=(1, 2), lines=True)
            while True:
                over = watch.gone or not (container.live or container.status is Status.RESTARTING)
                entries = await asyncio.to_thread(reader.read)
                chunks = shaper.feed(entries, reader.file) if entries else shaper.finish() if over else []
                for chunk in chunks:
                    await delivery.send(chunk.stream, chunk.time, chunk.data)
                if entries and not shaper.pending and not watch.gone:
                    _note(journal.with_name(NOTE), *reader.place)
                if not entries and over:
                    return
                if not entries:
                    await _news(container, watch)


class _Delivery:
    """Sends each message once it can; gives up only when the container is removed."""

    def __init__(self, container: Container, watch: Watch) -> None:
        self._container = container
        self._watch = watch
        self._sink: Sink | None = None
        options = container.spec.log.options
        form = options.get("syslog-format", "")
        self._source = Source(
            facility=int(options["facility"]),
            tag=options["tag"].replace(_NAME, container.name),
            hostname=socket.gethostname(),
            process=os.getpid(),
            form=form,
            counted=options["scheme"] == "tcp+tls" and form.startswith("rfc5424"),
        )

    async def send(self, stream: int, time_ns: int, line: bytes) -> None:
        data = message(self._source, stream=stream, time_ns=time_ns, line=line)
        delay = 0.0
        while True:
            try:
                if self._sink is None:
                    self._sink = await _connect(self._container.spec.log)
                await self._sink.send(data)
            except OSError as error:
                self.close()
                if not delay:
                    log.warning("container %s: syslog: %s", self._container.id[:12], error)
                if self._watch.gone:
                    return
                delay = min(delay * 2 or _FIRST_DELAY, _LONGEST_DELAY)
                await asyncio.sleep(delay)
            else:
                return

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None


async def _connect(config: LogConfig) -> Sink:
    return await connect(config.options["scheme"], config.options["address"], config.options)


async def _news(container: Container, watch: Watch) -> None:
    ended = container.arm_wait(WaitRequest.NOT_RUNNING)
    grown = asyncio.ensure_future(watch.changed())
    either: set[asyncio.Future[Any]] = {ended, grown}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        grown.cancel()


def _place(snapshot: Snapshot, note: Path) -> Position:
    """Where an earlier port layer stopped; the beginning when rotation has taken that away."""
    try:
        value = json.loads(note.read_bytes())
        inode, offset = int(value["inode"]), int(value["offset"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return snapshot.start
    for index, file in enumerate(snapshot.files):
        if file.inode == inode and offset <= file.size:
            return Position(index, offset)
    return snapshot.start


def _note(path: Path, inode: int, offset: int) -> None:
    """Not synced: after a crash of the host some lines are sent again."""
    new = path.with_name(f".{path.name}")
    new.write_text(json.dumps({"inode": inode, "offset": offset}))
    new.rename(path)
