"""Volumes: disks of their own, in stores that have labels.

A volume is an ext4 file system with one directory, ``data``, which is what
containers see: so they never see a ``lost+found``, and a new volume is empty.
One that is shared is the same directory without the disk, on the host's own file
system: any number of VMs may have it at once. One with a device is only a name
for a path of the host.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.offline import vmdk
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import durable
from portlayer.storage.failures import translated
from portlayer.storage.volumeoptions import parse_options
from portlayer.storage.worker import Workshop, uninterrupted

__all__ = ["VolumeInfo", "VolumeStores"]

_SLOTS = 4
_DISK, _TREE = "disk.vmdk", "tree"
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_DRIVERS = ("", "local", "vsphere")  # two names of one store: VIC's clients ask for the second


@dataclass(frozen=True, kw_only=True)
class VolumeInfo:
    name: str
    store: str
    driver: str
    capacity: int  # bytes
    created_at: int
    labels: dict[str, str]
    options: dict[str, str]  # as given
    anonymous: bool
    path: Path  # the disk; of a shared volume the directory that holds ``data``
    shared: bool = False
    device: str = ""  # a path of the host that is not ours
    device_read_only: bool = False
    metadata: bytes

    @property
    def mountpoint(self) -> str:
        if self.device:
            return self.device
        return str(self.path / "data" if self.shared else self.path)


def _no_step(name: str) -> None:
    pass


class VolumeStores:
    """All volumes of one VCH. ``stores``: label -> directory; "default" is one of them."""

    def __init__(
        self, stores: Mapping[str, Path], *, owner: tuple[int, int], step: Callable[[str], None] = _no_step
    ) -> None:
        if "default" not in stores:
            raise ValueError('there must be a volume store "default"')
        self._stores = dict(stores)
        self._owner = owner
        self._step = step
        self._workshops = {label: Workshop(path, slots=_SLOTS) for label, path in stores.items()}
        self._volumes: dict[str, VolumeInfo] = {}
        self._damaged: dict[str, Path] = {}  # directories whose description cannot be read
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def open(self) -> None:
        """Sweep and read what is there.

        A volume that is damaged (by somebody else: we publish whole ones) is
        reported and left out, and its name stays taken: its data may be all right.
        """
        self._volumes = {}
        self._damaged = {}
        for label, root in self._stores.items():
            with translated(f"volume store {label!r}", place=root.parent):
                root.mkdir(parents=True, exist_ok=True)
                root.chmod(0o711)
                await self._workshops[label].open()
                await asyncio.to_thread(durable.sweep, root)
                for path in root.iterdir():
                    if path.name.startswith("."):
                        continue
                    try:
                        self._volumes[path.name] = _load(label, path)
                    except (OSError, ValueError, KeyError, TypeError) as error:
                        _log.error("volume %s is damaged and left out: %r", path, error)
                        self._damaged[path.name] = path

    async def create(
        self,
        *,
        name: str,
        driver: str,
        options: Mapping[str, str],
        labels: Mapping[str, str],
        anonymous: bool,
        metadata: bytes,
        created_at: int,
    ) -> VolumeInfo:
        """Make a volume, or return the one of this name.

        Options: see :mod:`portlayer.storage.volumeoptions`.

        Raises:
            PortLayerError: NOT_SUPPORTED (names what), NO_SPACE
        """
        if not _NAME.fullmatch(name):
            message = (
                f"{name[:80]!r} includes invalid characters for a volume name, or is too short: "
                'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed, two or more of them'
            )
            raise PortLayerError(Reason.NOT_SUPPORTED, message)
        if driver not in _DRIVERS:
            raise PortLayerError(Reason.NOT_SUPPORTED, f"volume driver {driver[:80]!r} is not supported")
        wanted = parse_options(options, self._stores)
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name in self._volumes:
                return self._volumes[name]
            self._check_damage(name)
            info = VolumeInfo(
                name=name,
                store=wanted.store,
                driver=driver or "local",
                capacity=wanted.capacity,
                created_at=created_at,
                labels=dict(labels),
                options=dict(options),
                anonymous=anonymous,
                path=self._stores[wanted.store] / name / (_TREE if wanted.shared else _DISK),
                shared=wanted.shared,
                device=wanted.device,
                device_read_only=wanted.read_only,
                metadata=metadata,
            )
            await self._make(info)
            return info

    def get(self, name: str) -> VolumeInfo:
        try:
            return self._volumes[name]
        except KeyError:
            self._check_damage(name)
            raise PortLayerError(Reason.NO_SUCH_VOLUME, f"no such volume: {name[:255]}") from None

    def list(self) -> list[VolumeInfo]:
        return list(self._volumes.values())

    async def remove(self, name: str) -> VolumeInfo | None:
        """What was removed, ``None`` for a damaged one. One that is just being made is waited for.

        Raises:
            PortLayerError: NO_SUCH_VOLUME
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            info = None if name in self._damaged else self.get(name)
            self._step("volume:removing")
            await uninterrupted(self._remove(name, info.path.parent if info else self._damaged[name]))
            return info

    async def _remove(self, name: str, directory: Path) -> None:
        with translated(f"volume {name}", place=directory.parent):
            await asyncio.to_thread(durable.remove, directory)
        self._volumes.pop(name, None)
        self._damaged.pop(name, None)

    async def used_bytes(self, name: str) -> int:
        """Bytes that the volume takes on this host."""
        info = self.get(name)
        if info.device:
            return 0  # not ours
        if info.shared:
            return await asyncio.to_thread(_tree_bytes, info.path)
        return info.path.stat().st_blocks * 512

    async def _make(self, info: VolumeInfo) -> None:
        root = self._stores[info.store]
        what = f"volume {info.name}"
        # translated twice: whether the disk is full shows only while the failed attempt is still there
        with (
            translated(what, place=root),
            durable.new_directory(root) as directory,
            translated(what, place=root),
        ):
            self._step("volume:directory")
            if info.shared:
                (directory / _TREE / "data").mkdir(parents=True)
                (directory / _TREE).chmod(0o700)
            elif not info.device:
                await self._format(info, directory / _DISK)
            self._step("volume:formatted")
            await uninterrupted(self._make_known(directory, info))
        self._step("volume:published")

    async def _make_known(self, directory: Path, info: VolumeInfo) -> None:
        await asyncio.to_thread(self._publish, directory, info)
        self._volumes[info.name] = info

    async def _format(self, info: VolumeInfo, disk: Path) -> None:
        vmdk.create(disk, capacity=info.capacity)
        async with self._workshops[info.store].session() as worker:
            await worker.call("format", path=str(disk), label=_label(info.name), directory="data")

    def _publish(self, directory: Path, info: VolumeInfo) -> None:
        if not info.shared and not info.device:
            os.chown(directory / _DISK, *self._owner)
        os.chown(directory, 0, self._owner[1])
        document = {
            "version": 1,
            "name": info.name,
            "driver": info.driver,
            "capacity": info.capacity,
            "created_at": info.created_at,
            "labels": info.labels,
            "options": info.options,
            "anonymous": info.anonymous,
            "shared": info.shared,
            "device": info.device,
            "device_read_only": info.device_read_only,
            "metadata": base64.b64encode(info.metadata).decode(),
        }
        durable.write_file(directory / "volume.json", json.dumps(document, indent=1).encode())
        durable.publish(directory, info.path.parent)

    def _check_damage(self, name: str) -> None:
        if name in self._damaged:
            raise PortLayerError(
                Reason.UNSPECIFIED,
                f"volume {name} is damaged: {self._damaged[name]}/volume.json cannot be read",
            )


def _load(store: str, path: Path) -> VolumeInfo:
    document: dict[str, Any] = json.loads((path / "volume.json").read_text())
    shared, device = document.get("shared", False), document.get("device", "")
    content = path / (_TREE if shared else _DISK)
    if not device:
        content.stat()
    return VolumeInfo(
        name=document["name"],
        store=store,
        driver=document["driver"],
        capacity=document["capacity"],
        created_at=document["created_at"],
        labels=document["labels"],
        options=document["options"],
        anonymous=document["anonymous"],
        path=content,
        shared=shared,
        device=device,
        device_read_only=document.get("device_read_only", False),
        metadata=base64.b64decode(document["metadata"]),
    )


def _tree_bytes(root: Path) -> int:
    """What a guest may be changing meanwhile: what goes away is not counted."""
    total = 0
    for directory, _, files in os.walk(root, onerror=None):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118
            except FileNotFoundError:
                continue
    return total


def _label(name: str) -> str:
    """An ext4 label has 16 bytes: the name, or what is unique of it."""
    return name if len(name) <= 16 else hashlib.sha256(name.encode()).hexdigest()[:16]
