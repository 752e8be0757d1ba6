"""The engine's way to the port layer: one gRPC channel, errors as API errors.

::

    reply = await port.call(port.containers.Get, pb.ContainerRef(id=id))
    async with contextlib.aclosing(port.stream(port.containers.Wait, request)) as replies: …
    async with port.session(port.interaction.Attach) as session: …
    layer = await port.upload(port.layers.Put, chunks)

Everything raises :class:`PortLayerError`, an ``ApiError`` with Docker's status
code, the port layer's sentence and its ``reason``; a port layer that is down is
a 503 within seconds, never a hang. The operation ID travels along by itself.
"""

from engine.rpc.client import PortLayer, Session
from engine.rpc.errors import PortLayerError, PortLayerUnavailable

__all__ = ["PortLayer", "PortLayerError", "PortLayerUnavailable", "Session"]
