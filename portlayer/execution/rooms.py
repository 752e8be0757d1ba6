"""What the life of a container asks of its neighbours, as typed protocols.

The real rooms (``portlayer.storage``, ``portlayer.network``,
``portlayer.channel``, a hypervisor) satisfy them, and so do the fakes of the
tests. Every coroutine raises ``PortLayerError``, the hypervisor
``HypervisorError``, the channel ``ChannelError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from portlayer.hypervisor.base import Capabilities, Hypervisor
from portlayer.network import Attachment, PluggedNic
from portlayer.portlayer_pb2 import DiffEntry, Endpoint, Network, PortBinding
from tether.tether_pb2 import Event, HelloReply, Interface, PathStat, Resolver

__all__ = [
    "Attachment",
    "Channel",
    "ChannelFactory",
    "Disks",
    "GuestStream",
    "Images",
    "NetworkRoom",
    "OfflineTree",
    "PluggedNic",
    "Rooms",
    "Volumes",
]

M = TypeVar("M", bound=Message)


class OfflineTree(Protocol):
    async def stat(self, path: bytes) -> PathStat: ...

    def copy_out(self, path: bytes) -> AsyncIterator[bytes]: ...

    async def copy_in(
        self,
        path: bytes,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
        user: str = "",
    ) -> None: ...


class Images(Protocol):
    def get(self, chain_id: str) -> Any: ...


class Disks(Protocol):
    async def open(self, live: Collection[str]) -> None: ...

    async def create(self, container: str, *, layer: str, disk_bytes: int) -> Path: ...

    async def remove(self, container: str) -> None: ...

    def path(self, container: str) -> Path: ...

    async def size(self, container: str) -> tuple[int, int]: ...

    def offline(
        self, container: str, *, volumes: Sequence[tuple[Path, str, bool]] = (), writable: bool
    ) -> AbstractAsyncContextManager[OfflineTree]: ...

    def picture(self, container: str) -> AbstractAsyncContextManager[Path]: ...

    async def diff(
        self, container: str, *, picture: Path | None = None
    ) -> list[tuple[bytes, DiffEntry.Kind.ValueType]]: ...

    def export_diff(self, container: str, *, picture: Path | None = None) -> AsyncIterator[bytes]: ...


class Volume(Protocol):
    @property
    def path(self) -> Path: ...

    @property
    def shared(self) -> bool: ...

    @property
    def device(self) -> str: ...

    @property
    def device_read_only(self) -> bool: ...


class Volumes(Protocol):
    def get(self, name: str) -> Volume: ...


class NetworkRoom(Protocol):
    async def open(self, containers: Sequence[Attachment]) -> None: ...

    def get(self, ref: str) -> Network: ...

    def allocate(self, container: str, name: str, endpoint: Endpoint) -> Endpoint: ...

    def release(self, container: str, network: str | None = None) -> None: ...

    def reserve_ports(self, container: str, ports: Sequence[PortBinding]) -> list[PortBinding]: ...

    def release_ports(self, container: str) -> None: ...

    async def plug(self, attachment: Attachment) -> list[PluggedNic]: ...

    async def unplug(self, container: str, network: str | None = None) -> None: ...

    def interfaces(self, attachment: Attachment) -> tuple[list[Interface], Resolver]: ...

    def update_names(self, attachment: Attachment) -> None: ...


class GuestStream(Protocol):
    async def __aenter__(self) -> GuestStream: ...

    async def __aexit__(self, *error: Any) -> None: ...

    async def response(self, reply: type[M]) -> M: ...

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes, *, end: bool = False) -> None: ...

    async def cancel(self) -> None: ...


class Channel(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self) -> HelloReply: ...

    async def call(self, method: str, request: Message, reply: type[M], *, timeout: float = 30) -> M: ...

    async def stream(self, method: str, request: Message) -> GuestStream: ...

    def events(self) -> AsyncIterator[Event]: ...


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
ChannelFactory = Callable[[Connect, str], Channel]


@dataclass(frozen=True, kw_only=True)
class Rooms:
    hypervisor: Hypervisor
    capabilities: Capabilities
    images: Images
    disks: Disks
    volumes: Volumes
    network: NetworkRoom
    channel: ChannelFactory
