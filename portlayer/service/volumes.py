"""The Volumes service."""

from __future__ import annotations

from typing import Any

from portlayer.errors import PortLayerError
from portlayer.execution.house import House
from portlayer.portlayer_pb2 import (
    Reason,
    RemoveVolumeRequest,
    Volume,
    VolumeChange,
    VolumeList,
    VolumeRef,
)
from portlayer.portlayer_pb2_grpc import VolumesServicer
from portlayer.storage import VolumeInfo, VolumeStores
from tether.tether_pb2 import Empty

__all__ = ["Volumes"]


class Volumes(VolumesServicer):
    def __init__(self, stores: VolumeStores, house: House) -> None:
        self._stores = stores
        self._house = house

    async def Create(self, request: Volume, context: Any) -> Volume:
        return await self._house.complete(self._create(request))

    async def _create(self, request: Volume) -> Volume:
        known = any(info.name == request.name for info in self._stores.list())
        info = await self._stores.create(
            name=request.name,
            driver=request.driver,
            options=dict(request.options),
            labels=dict(request.labels),
            anonymous=request.anonymous,
            metadata=request.metadata,
            created_at=request.created_at or self._house.clock.now(),
        )
        volume = await self._message(info)
        if not known:
            self._house.hub.volume(VolumeChange(kind=VolumeChange.CREATED, volume=volume))
        return volume

    async def Get(self, request: VolumeRef, context: Any) -> Volume:
        return await self._message(self._stores.get(request.name))

    async def List(self, request: Empty, context: Any) -> VolumeList:
        volumes = []
        for info in self._stores.list():
            try:
                volumes.append(await self._message(info))
            except PortLayerError as error:
                if error.reason != Reason.NO_SUCH_VOLUME:  # removed while we were listing
                    raise
        return VolumeList(volumes=volumes)

    async def Remove(self, request: RemoveVolumeRequest, context: Any) -> Empty:
        """``force`` forgives a volume that is not there; never one that is in use, as in Docker."""
        await self._house.complete(self._remove(request.name, force=request.force))
        return Empty()

    async def _remove(self, name: str, *, force: bool) -> None:
        with self._house.registry.removing_volume(name):
            try:
                info = await self._stores.remove(name)
            except PortLayerError as error:
                if force and error.reason == Reason.NO_SUCH_VOLUME:
                    return
                raise
        volume = _facts(info) if info else Volume(name=name)
        self._house.hub.volume(VolumeChange(kind=VolumeChange.REMOVED, volume=volume))

    async def _message(self, info: VolumeInfo) -> Volume:
        volume = _facts(info)
        try:
            volume.used_bytes = await self._stores.used_bytes(info.name)
        except FileNotFoundError as error:
            raise PortLayerError(Reason.NO_SUCH_VOLUME, f"get {info.name}: no such volume") from error
        volume.users.extend(self._house.registry.volume_users(info.name))
        return volume


def _facts(info: VolumeInfo) -> Volume:
    return Volume(
        name=info.name,
        store=info.store,
        driver=info.driver,
        capacity=info.capacity,
        created_at=info.created_at,
        labels=info.labels,
        options=info.options,
        anonymous=info.anonymous,
        path=info.mountpoint,
        metadata=info.metadata,
    )
