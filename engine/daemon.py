"""One engine process: listeners, the port layer's channel, and an orderly end.

Nothing is kept here that a killed process would lose.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from engine.app import build_application
from engine.context import Engine
from engine.events.hub import EventHub
from engine.http import HttpServer, server_context
from engine.images import ImageService
from engine.rpc import PortLayer
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
    engine = Engine(config=config, port=port, images=images, events=events)
    server = HttpServer(build_application(engine))
    try:
        await server.listen_unix(config.paths.docker_socket, group=config.docker_group)
        await _listen_tcp(server, config.tls)
        logger.info("serving %s", config.paths.docker_socket)
        await stop.wait()
    finally:
        await server.close()
        await images.close()
        await port.close()


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
