"""What every resource of the API works with."""

from __future__ import annotations

from dataclasses import dataclass

from engine.catalog import ImageCatalog
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
