"""What the execution room tells the network about one container, and what it gets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from portlayer.portlayer_pb2 import Endpoint, PortBinding
from tether.tether_pb2 import Resolver

__all__ = ["Attachment", "PluggedNic"]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """One container as its specification says: *all* its endpoints and ports, in order."""

    container: str
    name: str
    hostname: str = ""
    endpoints: Sequence[Endpoint] = ()
    ports: Sequence[PortBinding] = ()
    running: bool = False
    resolver: Resolver = field(default_factory=Resolver)  # what the user wants


@dataclass(frozen=True, kw_only=True)
class PluggedNic:
    """A host interface that is ready to be a virtual NIC's other end."""

    tap: str
    mac: str
    bridge: str
    network: str
    mtu: int
