"""The image room put together: one per engine, made before the routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from engine import product
from engine.catalog import ImageRecord
from engine.containers.document import Document
from engine.events.hub import EventHub
from engine.images.catalog import Catalog
from engine.images.index import ImageIndex, StoredImage
from engine.images.layers import LayerPool
from engine.images.load import Loader
from engine.images.making import Maker
from engine.images.provenance import Provenance
from engine.images.pull import Puller
from engine.images.push import Pusher
from engine.images.removal import User
from engine.images.spool import Spool
from engine.images.transfer import Transfers
from engine.registry.reference import Reference
from engine.registry.transport import Transport
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb
from vch.config import VchConfig

__all__ = ["ImageService"]

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0
_SECOND_LOOK_SECONDS = 1.0
_SPOOL_LIMIT = 4 << 30  # layers downloaded ahead of their turn, all pulls together
_RUNNING = (
    pb.ContainerState.STARTING,
    pb.ContainerState.RUNNING,
    pb.ContainerState.PAUSED,
    pb.ContainerState.STOPPING,
    pb.ContainerState.RESTARTING,
)


class ImageService:
    """Implements `engine.catalog.ImageCatalog` for the other rooms."""

    def __init__(self, config: VchConfig, port: PortLayer, events: EventHub) -> None:
        self.port = port
        self.events = events
        self.layers = LayerPool(port)
        provenance = Provenance(port)
        self.catalog = Catalog(port, self.layers, provenance)
        spool = self.spool = Spool(config.paths.spool, _SPOOL_LIMIT)
        self.transport = Transport(f"{product.NAME.lower()}/{product.VERSION}")
        self.puller = Puller(
            registry=config.registry,
            transport=self.transport,
            catalog=self.catalog,
            layers=self.layers,
            transfers=Transfers(self.layers, spool),
            provenance=provenance,
        )
        self.pusher = Pusher(
            transport=self.transport,
            sources=self.puller.sources,
            catalog=self.catalog,
            layers=self.layers,
            provenance=provenance,
        )
        self.loader = Loader(self.catalog, self.layers, spool)
        self.maker = Maker(self.catalog, self.layers, spool)

    async def open(self) -> None:
        """Load the index as soon as the port layer answers, then keep house; runs until cancelled."""
        loaded = False
        while True:
            with self.events.subscribe() as events:
                try:
                    if not loaded:
                        await self.catalog.index()
                        loaded = True
                    while (event := await events.next()) is not None:
                        if (event.kind, event.action) == ("container", "destroy") and self.layers.left_behind:
                            await self.catalog.sweep()
                except PortLayerError as error:
                    logger.warning("cannot keep house among the images: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)

    async def tidy(self) -> None:
        """The port layer is there (again): remove the layers of pulls and loads that were cut short."""
        try:
            await self.catalog.sweep()
            if self.layers.left_behind:  # perhaps only by a call of a killed engine that was not over yet
                await asyncio.sleep(_SECOND_LOOK_SECONDS)
                await self.catalog.sweep()
        except PortLayerError as error:
            logger.warning("layers without an image stay for now: %s", error)

    async def close(self) -> None:
        await self.transport.close()

    async def resolve(self, reference: str) -> ImageRecord:
        return await self.catalog.resolve(reference)

    async def list(self) -> list[ImageRecord]:
        return await self.catalog.list()

    async def find(self, name: str) -> tuple[ImageIndex, StoredImage]:
        index = await self.catalog.index()
        return index, index.resolve(name)

    async def users(self) -> Mapping[str, Sequence[User]]:
        """The containers of each image, running ones first."""
        reply = await self.port.call(self.port.containers.List, pb.ListContainersRequest(), idempotent=True)
        found: dict[str, list[User]] = {}
        for container in reply.containers:
            image = Document.decode(container.handle.spec.metadata).image_id
            user = User(id=container.handle.id, running=container.state.status in _RUNNING)
            found.setdefault(image, []).append(user)
        for users in found.values():
            users.sort(key=lambda user: not user.running)
        return found

    def publish(self, action: str, actor: str, name: str, image: StoredImage | None) -> None:
        labels = image.config.labels if image else {}
        self.events.publish("image", action, actor, {**labels, "name": name})

    def published(self, action: str, image: StoredImage) -> None:
        """An event about the image itself, whatever it is called."""
        self.publish(action, image.id, image.id, image)

    async def tag(self, name: str, reference: Reference) -> None:
        async with self.catalog.changing:
            _, image = await self.find(name)
            await self.catalog.name(reference, image.id)
        self.publish("tag", image.id, reference.familiar, image)
