"""The port layer as a process: rooms built, recovered, served, let go.

Order matters. The lock comes first: two port layers on one VCH would undo each
other. The socket comes last, when every container is known again. On the way
down the socket goes first; VMs keep running, and everything that the next port
layer needs lies with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from portlayer.channel import TetherChannel
from portlayer.execution.events import EventHub
from portlayer.execution.house import House, SystemClock
from portlayer.execution.manager import Execution
from portlayer.execution.registry import Registry
from portlayer.execution.rooms import Connect, Rooms
from portlayer.hypervisor.base import Hypervisor
from portlayer.hypervisor.qemu import QemuHypervisor
from portlayer.journal.watcher import JournalWatcher
from portlayer.network import NetworkManager
from portlayer.portlayer_pb2_grpc import (
    add_ContainersServicer_to_server,
    add_InteractionServicer_to_server,
    add_KeyValuesServicer_to_server,
    add_LayersServicer_to_server,
    add_NetworksServicer_to_server,
    add_SystemServicer_to_server,
    add_VolumesServicer_to_server,
)
from portlayer.service.containers import Containers
from portlayer.service.interaction import Interaction
from portlayer.service.keyvalues import KeyValues
from portlayer.service.layers import Layers
from portlayer.service.networks import Networks
from portlayer.service.server import bind, make_server, unbind
from portlayer.service.system import System
from portlayer.service.volumes import Volumes
from portlayer.storage import ContainerDisks, ImageStore, KeyValueStore, VolumeStores
from vch.config import VchConfig

__all__ = ["AlreadyServed", "purge", "serve"]

log = logging.getLogger(__name__)
_GRACE = 0.5  # seconds for calls under way at shutdown; followed logs would never end


class AlreadyServed(Exception):
    """Another port layer holds this VCH."""


async def serve(config: VchConfig, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set.

    Raises:
        AlreadyServed: nothing was touched.
    """
    with _only_one(config.paths.run):
        await _serve(config, stop)


@contextlib.contextmanager
def _only_one(run: Path) -> Iterator[None]:
    run.mkdir(parents=True, exist_ok=True)
    path = run / "portlayer.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyServed(f"{path} is locked: another port layer serves this VCH") from error
        yield
    finally:
        os.close(fd)


async def purge(config: VchConfig) -> None:
    """Remove all containers of the VCH by force, and its network from the host.

    Killed half-way, a second purge finishes. Images, volumes and files are the caller's to delete.

    Raises:
        AlreadyServed: the daemons still run; nothing was touched.
    """
    with _only_one(config.paths.run):
        async with contextlib.AsyncExitStack() as stack:
            rooms = await _open(config, stack)
            for container in rooms.execution.house.registry.all():
                await rooms.execution.remove(container.id, force=True)
            await rooms.network.purge()


@dataclass(frozen=True, kw_only=True)
class _Rooms:
    """All rooms, opened and recovered."""

    execution: Execution
    images: ImageStore
    volumes: VolumeStores
    documents: KeyValueStore
    network: NetworkManager


async def _open(config: VchConfig, stack: contextlib.AsyncExitStack) -> _Rooms:
    """Build the rooms and recover what is there; ``stack`` closes them."""
    user = pwd.getpwnam(config.qemu_user)
    owner = (user.pw_uid, user.pw_gid)
    paths = config.paths
    images = ImageStore(paths.layers, owner=owner, disk_bytes=config.defaults.disk_bytes)
    disks = ContainerDisks(paths.containers, images, owner=owner)
    volumes = VolumeStores({"default": paths.volumes / "default", **config.volume_stores}, owner=owner)
    documents = KeyValueStore(paths.kv)
    network = NetworkManager(
        paths.networks,
        vch_id=config.id,
        bridge_range=config.bridge_range,
        bridge_width=config.bridge_width,
        bridge_range_v6=config.bridge_range_v6,
        dns=config.dns,
        qemu_uid=user.pw_uid,
        host_access=config.host_access,
    )
    hypervisor = _hypervisor(config)
    await images.open()
    await volumes.open()
    documents.open()
    await hypervisor.open()
    stack.push_async_callback(hypervisor.close)
    rooms = Rooms(
        hypervisor=hypervisor,
        capabilities=await hypervisor.capabilities(),
        images=images,
        disks=disks,
        volumes=volumes,
        network=network,
        channel=_channel,
    )
    clock = SystemClock()
    house = House(
        config=config,
        rooms=rooms,
        registry=Registry(config),
        hub=EventHub(clock.now),
        watcher=JournalWatcher(),
        clock=clock,
    )
    execution = Execution(house)
    stack.push_async_callback(network.close)
    await execution.open()
    stack.push_async_callback(execution.close)
    return _Rooms(execution=execution, images=images, volumes=volumes, documents=documents, network=network)


async def _serve(config: VchConfig, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        rooms = await _open(config, stack)
        execution, house = rooms.execution, rooms.execution.house
        server = make_server()
        add_ContainersServicer_to_server(Containers(execution), server)
        add_InteractionServicer_to_server(Interaction(execution), server)
        add_LayersServicer_to_server(Layers(rooms.images, house.registry), server)
        add_VolumesServicer_to_server(Volumes(rooms.volumes, house), server)
        add_NetworksServicer_to_server(Networks(rooms.network, house.hub), server)
        add_KeyValuesServicer_to_server(KeyValues(rooms.documents), server)
        add_SystemServicer_to_server(System(house), server)
        bind(server, config.paths.portlayer_socket)
        await server.start()
        stack.push_async_callback(server.stop, _GRACE)
        stack.callback(unbind, config.paths.portlayer_socket)
        log.info("serving %s on %s", config.name, config.paths.portlayer_socket)
        execution.start_policies()
        await stop.wait()
        log.info("stopping; container VMs keep running")


def _channel(connect: Connect, name: str) -> TetherChannel:
    return TetherChannel(connect, name=name)


def _hypervisor(config: VchConfig) -> Hypervisor:
    return QemuHypervisor(config)
