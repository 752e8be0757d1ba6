"""The Networks service."""

from __future__ import annotations

from typing import Any

from portlayer.execution.events import EventHub
from portlayer.network import NetworkManager
from portlayer.portlayer_pb2 import Network, NetworkChange, NetworkList, NetworkRef
from portlayer.portlayer_pb2_grpc import NetworksServicer
from tether.tether_pb2 import Empty

__all__ = ["Networks"]


class Networks(NetworksServicer):
    def __init__(self, manager: NetworkManager, hub: EventHub) -> None:
        self._manager = manager
        self._hub = hub

    async def Create(self, request: Network, context: Any) -> Network:
        network = await self._manager.create(request)
        self._hub.network(NetworkChange(kind=NetworkChange.CREATED, network=network))
        return network

    async def Get(self, request: NetworkRef, context: Any) -> Network:
        return self._manager.get(request.id)

    async def List(self, request: Empty, context: Any) -> NetworkList:
        return NetworkList(networks=self._manager.list())

    async def Remove(self, request: NetworkRef, context: Any) -> Empty:
        network = self._manager.get(request.id)
        await self._manager.remove(request.id)
        self._hub.network(NetworkChange(kind=NetworkChange.REMOVED, network=network))
        return Empty()
