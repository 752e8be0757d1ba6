"""One engine process: listeners, the port layer's channel, and an orderly end.

Nothing is kept here that a killed process would lose.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from engine.app import build_application
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.index import ContainerIndex
from engine.context import Engine
from engine.events.hub import EventHub
from engine.events.pump import EventPump
from engine.http import HttpServer, server_context
from engine.images import ImageService
from engine.rpc import PortLayer
from engine.sweeper import Sweeper
from vch.config import Tls, TlsMode, VchConfig

__all__ = ["run"]

logger = logging.getLogger(__name__)


async def run(config: VchConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = PortLayer(config.paths.portlayer_socket)
    events = EventHub()
    images = ImageService(config, port, events)
    engine = Engine(
        config=config,
        port=port,
        images=images,
        events=events,
        containers=ContainerIndex(port),
        anonymous=AnonymousVolumes(port),
    )
    server = HttpServer(build_application(engine))
    sweeper = Sweeper(engine)
    pump = EventPump(engine, on_connected=sweeper.sweep, on_container=sweeper.on_container)
    background = [
        asyncio.create_task(pump.run()),
        asyncio.create_task(sweeper.run_exec_sweeps()),
        asyncio.create_task(images.open()),
    ]
    try:
        await server.listen_unix(config.paths.docker_socket, group=config.docker_group)
        await _listen_tcp(server, config.tls)
        logger.info("serving %s", config.paths.docker_socket)
        await _until(stop, background)
    finally:
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        await server.close()
        await sweeper.close()
        await images.close()
        await port.close()


async def _until(stop: asyncio.Event, background: list[asyncio.Task[None]]) -> None:
    """Wait for the signal; a background task that ends is a bug: end with it, the supervisor restarts us."""
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({waiting, *background}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiting}:
            task.result()
    finally:
        waiting.cancel()


async def _listen_tcp(server: HttpServer, tls: Tls) -> None:
    if not tls.port:
        return
    context = None
    if tls.mode is TlsMode.NONE:
        logger.warning(
            "port %d is plain text without authentication: whoever reaches it owns this VCH", tls.port
        )
    else:
        if tls.cert is None or tls.key is None:
            raise ValueError(f"tls.mode {tls.mode.value} needs tls.cert and tls.key")
        if tls.mode is TlsMode.MUTUAL and tls.ca is None:
            raise ValueError("tls.mode mutual needs tls.ca")
        context = server_context(
            cert=tls.cert, key=tls.key, ca=tls.ca if tls.mode is TlsMode.MUTUAL else None
        )
    await server.listen_tcp(tls.host, tls.port, tls=context)
