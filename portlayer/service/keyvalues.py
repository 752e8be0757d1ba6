"""The KeyValues service."""

from __future__ import annotations

import asyncio
from typing import Any

from portlayer.portlayer_pb2 import KeyPrefix, KeyRef, KeyValue, KeyValueList
from portlayer.portlayer_pb2_grpc import KeyValuesServicer
from portlayer.storage import KeyValueStore
from tether.tether_pb2 import Empty

__all__ = ["KeyValues"]


class KeyValues(KeyValuesServicer):
    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._writing = asyncio.Lock()  # a write syncs its file; the others need not wait for the disk

    async def Put(self, request: KeyValue, context: Any) -> KeyValue:
        async with self._writing:
            version = await asyncio.to_thread(self._store.put, request.key, request.value, request.version)
        return KeyValue(key=request.key, version=version)

    async def Get(self, request: KeyRef, context: Any) -> KeyValue:
        value, version = self._store.get(request.key)
        return KeyValue(key=request.key, value=value, version=version)

    async def List(self, request: KeyPrefix, context: Any) -> KeyValueList:
        found = self._store.list(request.prefix)
        items = [KeyValue(key=key, value=value, version=version) for key, (value, version) in found.items()]
        return KeyValueList(items=items)

    async def Delete(self, request: KeyRef, context: Any) -> Empty:
        async with self._writing:
            await asyncio.to_thread(self._store.delete, request.key)
        return Empty()
