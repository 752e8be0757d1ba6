"""From the port layer's pushed events to Docker's, for as long as the engine lives.

When the stream breaks (the port layer restarts), it is opened again; what may
have been missed meanwhile is made good by the ``on_connected`` hook, which looks
at everything once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from engine import operation
from engine.containers.lifecycle import event_attributes
from engine.containers.status import health_name
from engine.context import Engine
from engine.rpc import PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["EventPump", "publish"]

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
Kind = pb.ContainerEvent.Kind

_ACTIONS = {
    Kind.CREATED: "create",
    Kind.STARTED: "start",
    Kind.DIED: "die",
    Kind.OOM: "oom",
    Kind.STOPPED: "stop",
    Kind.PAUSED: "pause",
    Kind.UNPAUSED: "unpause",
    Kind.REMOVED: "destroy",
    Kind.EXEC_DIED: "exec_die",
    Kind.KILLED: "kill",
}
_NETWORK = {
    pb.NetworkChange.CREATED: "create",
    pb.NetworkChange.REMOVED: "destroy",
    pb.NetworkChange.CONNECTED: "connect",
    pb.NetworkChange.DISCONNECTED: "disconnect",
}
_VOLUME = {
    pb.VolumeChange.CREATED: "create",
    pb.VolumeChange.REMOVED: "destroy",
    pb.VolumeChange.MOUNTED: "mount",
    pb.VolumeChange.UNMOUNTED: "unmount",
}

ContainerHook = Callable[[pb.ContainerEvent], None]


class EventPump:
    def __init__(
        self, engine: Engine, *, on_connected: Callable[[], Awaitable[None]], on_container: ContainerHook
    ) -> None:
        self._engine = engine
        self._on_connected = on_connected
        self._on_container = on_container

    async def run(self) -> None:
        """Until cancelled."""
        connected_before = False
        while True:
            operation.begin()
            try:
                await self._follow()
                logger.warning("the port layer ended the event stream")
                connected_before = True
            except PortLayerError as error:
                log = logger.warning if connected_before else logger.info
                log("no events from the port layer: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        port = self._engine.port
        events = port.stream(port.system.Events, pb.EventsSubscription())
        async with contextlib.aclosing(events):
            async for event in events:
                which = event.WhichOneof("event")
                if which == "ready":
                    await self._on_connected()
                    continue
                publish(self._engine, event)
                if which == "container":
                    self._on_container(event.container)


def publish(engine: Engine, event: pb.PortlayerEvent) -> None:
    """Translate one event and hand it to whoever listens."""
    which = event.WhichOneof("event")
    if which == "container":
        _container(engine, event.container, event.time)
    elif which == "network":
        _network(engine, event.network, event.time)
    elif which == "volume":
        _volume(engine, event.volume, event.time)


def _container(engine: Engine, event: pb.ContainerEvent, time_ns: int) -> None:
    if event.kind == Kind.REMOVED:
        attributes = event_attributes(engine, event.handle)
        engine.containers.forget(event.id)
    else:
        engine.containers.note(event.handle)
        attributes = event_attributes(engine, event.handle)
    if event.kind == Kind.HEALTH:
        action = f"health_status: {health_name(event.state)}"
    elif event.kind in _ACTIONS:
        action = _ACTIONS[event.kind]
    else:
        return
    if event.kind == Kind.DIED:
        attributes["exitCode"] = str(event.state.exit_code)
        started, finished = event.state.started_at, event.state.finished_at
        if 0 < started <= finished:
            attributes["execDuration"] = str((finished - started) // 1_000_000_000)
    elif event.kind == Kind.KILLED:
        attributes["signal"] = str(event.signal)
    elif event.kind == Kind.EXEC_DIED:
        attributes["execID"] = event.exec_id
        attributes["exitCode"] = str(event.exit_code)
    engine.events.publish("container", action, event.id, attributes, time_ns=time_ns)


def _network(engine: Engine, change: pb.NetworkChange, time_ns: int) -> None:
    action = _NETWORK.get(change.kind)
    if action is None:
        return
    attributes = {"name": change.network.name, "type": change.network.type}
    if change.container:
        attributes["container"] = change.container
    engine.events.publish("network", action, change.network.id, attributes, time_ns=time_ns)


def _volume(engine: Engine, change: pb.VolumeChange, time_ns: int) -> None:
    action = _VOLUME.get(change.kind)
    if action is None:
        return
    attributes = {"driver": change.volume.driver or "local"}
    if change.container:
        attributes["container"] = change.container
    if change.kind == pb.VolumeChange.MOUNTED:
        attributes["destination"] = change.destination
        attributes["propagation"] = ""
        attributes["read/write"] = "false" if change.read_only else "true"
    engine.events.publish("volume", action, change.volume.name, attributes, time_ns=time_ns)
