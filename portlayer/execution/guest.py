"""Questions to a running container's guest, with the guest's failures in the port layer's words.

What comes back was written by the guest: callers bound what they keep of it.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from portlayer.channel import ChannelClosed, ChannelError, ChannelLost, TetherError
from portlayer.errors import PortLayerError
from portlayer.execution.container import Container
from portlayer.execution.rooms import Channel
from portlayer.execution.states import Status, require
from portlayer.portlayer_pb2 import Reason
from tether.wire import Code

__all__ = ["ask", "guest_error", "running_channel"]

M = TypeVar("M", bound=Message)
_TALKING = (Status.RUNNING, Status.STOPPING)
_LONGEST_WORDS = 4096
_REASONS = {
    Code.NOT_FOUND: Reason.NO_SUCH_PATH,
    Code.DEADLINE_EXCEEDED: Reason.GUEST_LOST,
    Code.UNAVAILABLE: Reason.GUEST_LOST,
    Code.UNIMPLEMENTED: Reason.NOT_SUPPORTED,
    Code.RESOURCE_EXHAUSTED: Reason.LIMIT_EXCEEDED,
}


def running_channel(container: Container, call: str) -> Channel:
    """The channel of a container whose guest can answer, or PortLayerError with the state."""
    require(container.name, call, container.status, _TALKING)
    run = container.run
    if run is None or run.channel is None:
        raise PortLayerError(
            Reason.NOT_RUNNING, f"cannot {call} container {container.name}: it has just ended"
        )
    return run.channel


async def ask(
    container: Container,
    method: str,
    request: Message,
    reply: type[M],
    *,
    call: str,
    timeout: float,
    not_found: Reason.ValueType = Reason.NO_SUCH_PATH,
    repeat: bool = True,
) -> M:
    """One question. ``repeat``: asking twice does no harm, so a lost connection costs one more try."""
    channel = running_channel(container, call)
    try:
        return await channel.call(method, request, reply, timeout=timeout)
    except ChannelLost as error:
        if not repeat:
            raise guest_error(container, call, error) from error
    except ChannelError as error:
        raise guest_error(container, call, error, not_found=not_found) from error
    try:
        return await channel.call(method, request, reply, timeout=timeout)
    except ChannelError as error:
        raise guest_error(container, call, error, not_found=not_found) from error


def guest_error(
    container: Container,
    call: str,
    error: ChannelError,
    *,
    not_found: Reason.ValueType = Reason.NO_SUCH_PATH,
) -> PortLayerError:
    """The port layer's word for what the channel or the guest said."""
    if isinstance(error, ChannelClosed):
        words = f"cannot {call} container {container.name}: it ended meanwhile"
        return PortLayerError(Reason.NOT_RUNNING, words)
    if not isinstance(error, TetherError):
        words = f"cannot {call} container {container.name}: the connection to its guest broke: {error}"
        return PortLayerError(Reason.GUEST_LOST, words)
    reason = not_found if error.code is Code.NOT_FOUND else _REASONS.get(error.code, Reason.UNSPECIFIED)
    words = str(error)[:_LONGEST_WORDS]
    if reason == Reason.GUEST_LOST:
        words = f"cannot {call} container {container.name}: its guest does not answer: {words}"
    return PortLayerError(reason, words)
