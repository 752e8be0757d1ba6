"""What every resource of the API works with."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from engine.catalog import ImageCatalog
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.index import ContainerIndex
from engine.events.hub import EventHub
from engine.rpc import PortLayer
from vch.config import VchConfig

__all__ = ["Engine"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Stateless but for the ring of past events: everything else is asked for when it is needed."""

    config: VchConfig
    port: PortLayer
    images: ImageCatalog
    events: EventHub
    containers: ContainerIndex
    anonymous: AnonymousVolumes
    instance: str = field(default_factory=lambda: secrets.token_hex(8))  # of this process: marks builds
    started_at: int = field(default_factory=time.time_ns)
