"""Anonymous volumes come and go with their container, also when we are killed in between.

They are made before the container that they are for, and removed after the one
they were for. Meanwhile a document says which they are: whoever finds it later
(:meth:`AnonymousVolumes.sweep`) knows that volumes without their container are
half-made things, and not those that a ``docker rm`` without ``-v`` has left on purpose.

The container decides, both ways: as long as it is there, its volumes stay.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Sequence

from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["AnonymousVolumes"]

logger = logging.getLogger(__name__)

PREFIX = "anonymous/"
_MADE_UP = re.compile(r"[0-9a-f]{64}")


class AnonymousVolumes:
    def __init__(self, port: PortLayer) -> None:
        self._port = port
        self._ours: set[str] = set()  # containers that are coming or going in this process
        self._inherited: dict[str, list[str]] = {}  # documents of one that was killed

    @contextlib.asynccontextmanager
    async def of(self, container: str, volumes: Sequence[str]) -> AsyncIterator[None]:
        """Around the making or the removal of ``container``; after it, its volumes are as it is."""
        if not volumes:
            if container in self._inherited:  # a removal that shall leave them, after one that was cut short
                await self._forget(container)
            yield
            return
        self._ours.add(container)
        try:
            await self._remember(container, volumes)
            try:
                yield
            finally:
                await self._settle(container, volumes)
        finally:
            self._ours.discard(container)

    async def _remember(self, container: str, volumes: Sequence[str]) -> None:
        value = json.dumps(list(volumes)).encode()
        try:
            await self._port.call(self._port.keys.Put, pb.KeyValue(key=PREFIX + container, value=value))
        except PortLayerError as error:
            if error.reason != pb.NO_SPACE:
                raise
            # Removals free space, so they must work without; nothing can be made on a full disk anyway.
            logger.warning("the disk is full: killed now, we would forget anonymous volumes")

    async def sweep(self) -> None:
        """Finish what a killed engine has left; call it when no other engine works here."""
        listed = await self._port.call(self._port.keys.List, pb.KeyPrefix(prefix=PREFIX), idempotent=True)
        for item in listed.items:
            container = item.key.removeprefix(PREFIX)
            if container not in self._ours:
                self._inherited[container] = _decode(item)
        for container in list(self._inherited):
            await self.settle(container)

    async def settle(self, container: str) -> None:
        """Something has become of ``container``, which a killed engine was making or removing."""
        volumes = self._inherited.get(container)
        if volumes is not None:
            await self._settle(container, volumes)

    async def _settle(self, container: str, volumes: Sequence[str]) -> None:
        """Never raises: the document stays when the port layer does not answer, and is found again."""
        try:
            found = await self._find(container)
            if found is not None and found.state.status == pb.ContainerState.REMOVING:
                self._inherited[container] = list(volumes)
                return
            if found is None:
                for volume in volumes:
                    await self._remove(volume)
            await self._forget(container)
        except PortLayerError as error:
            self._inherited[container] = list(volumes)
            logger.warning("anonymous volumes of container %s stay for now: %s", container[:12], error)

    async def _find(self, container: str) -> pb.Container | None:
        try:
            return await self._port.call(
                self._port.containers.Get, pb.ContainerRef(id=container), idempotent=True, patience=1.0
            )
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_CONTAINER:
                raise
            return None

    async def _remove(self, name: str) -> None:
        """Unless somebody else has come to use it (``--volumes-from``)."""
        try:
            if await self._is_ours(name):
                await self._port.call(self._port.volumes.Remove, pb.RemoveVolumeRequest(name=name))
        except PortLayerError as error:
            if error.reason not in (pb.NO_SUCH_VOLUME, pb.VOLUME_IN_USE):
                raise

    async def _is_ours(self, name: str) -> bool:
        try:
            volume = await self._port.call(self._port.volumes.Get, pb.VolumeRef(name=name), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_VOLUME:
                raise
            # A call of the killed engine may just be making it: its removal waits for that.
            return _MADE_UP.fullmatch(name) is not None
        return volume.anonymous and not volume.users

    async def _forget(self, container: str) -> None:
        try:
            await self._port.call(self._port.keys.Delete, pb.KeyRef(key=PREFIX + container), idempotent=True)
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_KEY:
                raise
        self._inherited.pop(container, None)


def _decode(item: pb.KeyValue) -> list[str]:
    """The volumes; none of a document that cannot be read, which then goes with its container."""
    try:
        names = json.loads(item.value)
    except ValueError as error:
        logger.error("document %s is damaged: %s", item.key, error)
        return []
    return [str(name) for name in names]
