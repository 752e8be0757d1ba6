"""What nobody asks for but must happen: ``--rm`` containers go when they exit, those of dead builds and
old exec documents too, and anonymous volumes whose container was half made or half removed.

Driven by events; everything is looked at once whenever the event stream is
(re)opened, so an exit during a restart is not forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from engine import operation
from engine.containers import status
from engine.containers.removal import remove_quietly
from engine.context import Engine
from engine.execs.store import ExecStore
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["Sweeper"]

logger = logging.getLogger(__name__)

EXEC_INTERVAL_SECONDS = 300.0


class Sweeper:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._execs = ExecStore(engine.port)
        self._tasks: set[asyncio.Task[None]] = set()

    def on_container(self, event: pb.ContainerEvent) -> None:
        if event.kind == pb.ContainerEvent.REMOVED:
            self._start(self._engine.anonymous.settle(event.id))
        if event.kind == pb.ContainerEvent.DIED and event.handle.spec.ephemeral:
            self._start_removal(event.handle)

    async def sweep(self) -> None:
        """Remove every ``--rm`` container that has run and ended, and what a killed engine left half done."""
        self._start(self._engine.images.tidy())
        try:
            await self._engine.anonymous.sweep()
            containers = await self._engine.containers.list()
        except PortLayerError as error:
            logger.warning("cannot look for what is to be removed: %s", error)
            return
        for container in containers:
            ended = status.state_name(container.state) in ("exited", "dead")
            builder = self._engine.containers.document(container.handle).builder
            if builder and builder != self._engine.instance:
                self._start_removal(container.handle)  # of a build whose engine has died
            elif container.handle.spec.ephemeral and ended and container.state.started_at:
                self._start_removal(container.handle)

    async def run_exec_sweeps(self) -> None:
        """Until cancelled."""
        while True:
            operation.begin()
            try:
                containers = await self._engine.containers.list()
                running = {c.handle.id: True for c in containers if status.is_running(c.state)}
                await self._execs.sweep(running)
            except PortLayerError as error:
                logger.info("exec documents were not swept: %s", error)
            await asyncio.sleep(EXEC_INTERVAL_SECONDS)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start_removal(self, handle: pb.Handle) -> None:
        self._start(self._remove(handle))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, handle: pb.Handle) -> None:
        operation.begin()
        logger.info("container %s is needed no more: removing it", handle.id[:12])
        await remove_quietly(self._engine, handle)
