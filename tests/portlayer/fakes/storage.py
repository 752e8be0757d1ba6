"""Layers, container disks and volumes in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import (
    Reason,
)
from tether.tether_pb2 import (
    PathStat,
)

if TYPE_CHECKING:
    from tests.portlayer.world import World


@dataclass(frozen=True)
class FakeLayer:
    chain_id: str


class FakeImages:
    def __init__(self) -> None:
        self.layers = {f"sha256:{'1' * 64}"}

    def get(self, chain_id: str) -> FakeLayer:
        if chain_id not in self.layers:
            raise PortLayerError(Reason.NO_SUCH_LAYER, f"no such layer: {chain_id}")
        return FakeLayer(chain_id)


@dataclass
class FakeTree:
    files: dict[bytes, bytes]
    writable: bool

    async def stat(self, path: bytes) -> PathStat:
        if path not in self.files:
            raise PortLayerError(Reason.NO_SUCH_PATH, f"{path!r}: no such file")
        return PathStat(name=path, size=len(self.files[path]))

    async def copy_out(self, path: bytes) -> AsyncIterator[bytes]:
        yield self.files[path]

    async def copy_in(self, path: bytes, chunks: AsyncIterator[bytes], **_: bool | str) -> None:
        assert self.writable
        self.files[path] = b"".join([chunk async for chunk in chunks])


class FakeDisks:
    def __init__(self, host: World) -> None:
        self.host = host
        self.disks: dict[str, dict[bytes, bytes]] = {}
        self.mounted: list[tuple[str, tuple[Any, ...], bool]] = []
        self.pictures: list[str] = []  # copies that exist

    async def open(self, live: Collection[str]) -> None:
        self.disks = {name: files for name, files in self.disks.items() if name in live}

    async def create(self, container: str, *, layer: str, disk_bytes: int) -> Path:
        self.host.faults("disks.create")
        self.disks[container] = {}
        return self.path(container)

    async def remove(self, container: str) -> None:
        self.host.faults("disks.remove")
        self.disks.pop(container, None)

    def path(self, container: str) -> Path:
        return Path("/disks") / container

    async def size(self, container: str) -> tuple[int, int]:
        return 10, 100

    @asynccontextmanager
    async def offline(
        self, container: str, *, volumes: Sequence[Any] = (), writable: bool
    ) -> AsyncIterator[FakeTree]:
        self.mounted.append((container, tuple(volumes), writable))
        yield FakeTree(self.disks[container], writable)

    @asynccontextmanager
    async def picture(self, container: str) -> AsyncIterator[Path]:
        self.host.faults("disks.picture")
        self.pictures.append(container)
        try:
            yield Path("/pictures") / container
        finally:
            self.pictures.remove(container)

    async def diff(self, container: str, *, picture: Path | None = None) -> list[tuple[bytes, int]]:
        return [(b"/etc/x", 1)]

    async def export_diff(self, container: str, *, picture: Path | None = None) -> AsyncIterator[bytes]:
        yield b"of a picture" if picture else b"of the disk"


@dataclass(frozen=True)
class FakeVolume:
    path: Path
    shared: bool = False
    device: str = ""
    device_read_only: bool = False


class FakeVolumes:
    def __init__(self) -> None:
        self.names = {"data", "other"}

    def get(self, name: str) -> FakeVolume:
        if name not in self.names:
            raise PortLayerError(Reason.NO_SUCH_VOLUME, f"get {name}: no such volume")
        return FakeVolume(Path("/volumes") / name)
