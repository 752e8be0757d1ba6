"""Finding containers: by ID, name or unique ID prefix, always asked of the port layer.

The names seen so far are kept as *hints*: a lookup tries the hinted ID first
and believes it only when the port layer's answer matches; otherwise everything
is listed. Losing the hints loses time, never truth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.containers.document import Document
from engine.http import BadRequest, NotFound
from engine.rpc import PortLayer, PortLayerError
from portlayer import portlayer_pb2 as pb

__all__ = ["ContainerIndex", "no_such_container"]

_FULL_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{1,64}")
SAFE_PREFIX = 12  # a shorter one may be ambiguous: only the whole list tells


def no_such_container(reference: str) -> NotFound:
    return NotFound(f"No such container: {reference}")


class ContainerIndex:
    def __init__(self, port: PortLayer) -> None:
        self._port = port
        self._names: dict[str, str] = {}  # name -> ID
        self._ids: dict[str, str] = {}  # ID -> name
        self._documents: dict[str, tuple[bytes, Document]] = {}

    async def list(self) -> list[pb.Container]:
        reply = await self._port.call(self._port.containers.List, pb.ListContainersRequest(), idempotent=True)
        containers = list(reply.containers)
        self._names = {item.handle.spec.name: item.handle.id for item in containers}
        self._ids = {item.handle.id: item.handle.spec.name for item in containers}
        self._documents = {id_: entry for id_, entry in self._documents.items() if id_ in self._ids}
        return containers

    async def get(self, container: str) -> pb.Container | None:
        """By full ID."""
        try:
            found = await self._port.call(
                self._port.containers.Get, pb.ContainerRef(id=container), idempotent=True
            )
        except PortLayerError as error:
            if error.reason != pb.NO_SUCH_CONTAINER:
                raise
            return None
        self.note(found.handle)
        return found

    async def find(self, reference: str) -> pb.Container:
        """By ID, name (with or without a slash) or unique ID prefix. NotFound, BadRequest when ambiguous."""
        name = reference.removeprefix("/")
        if not name or len(name) > 4096:
            raise no_such_container(reference)
        if _FULL_ID.fullmatch(name):
            found = await self.get(name)
            if found is not None:
                return found
        hinted = self._names.get(name)
        if hinted is not None:
            found = await self.get(hinted)
            if found is not None and found.handle.spec.name == name:
                return found
        elif len(name) >= SAFE_PREFIX and _PREFIX.fullmatch(name):
            hinted_ids = [id_ for id_ in self._ids if id_.startswith(name)]
            if len(hinted_ids) == 1:
                found = await self.get(hinted_ids[0])
                if found is not None:
                    return found
        return self._pick(await self.list(), name, reference)

    @staticmethod
    def _pick(containers: Sequence[pb.Container], name: str, reference: str) -> pb.Container:
        for container in containers:
            if name in (container.handle.spec.name, container.handle.id):
                return container
        matches = [item for item in containers if item.handle.id.startswith(name)]
        if len(matches) > 1:
            raise BadRequest(f"multiple IDs found with provided prefix: {name}")
        if not matches:
            raise no_such_container(reference)
        return matches[0]

    def document(self, handle: pb.Handle) -> Document:
        """The parsed metadata; parsed once as long as it stays the same."""
        raw = handle.spec.metadata
        known = self._documents.get(handle.id)
        if known is not None and known[0] == raw:
            return known[1]
        document = Document.decode(raw)
        self._documents[handle.id] = (raw, document)
        return document

    async def name_of(self, container: str) -> str:
        """The container's name; its ID when it is gone."""
        known = self._ids.get(container)
        if known is None:
            found = await self.get(container)
            known = found.handle.spec.name if found is not None else container
        return known

    def note(self, handle: pb.Handle) -> None:
        old = self._ids.get(handle.id)
        if old is not None and old != handle.spec.name:
            self._names.pop(old, None)
        self._ids[handle.id] = handle.spec.name
        self._names[handle.spec.name] = handle.id

    def forget(self, container: str) -> None:
        name = self._ids.pop(container, None)
        if name is not None and self._names.get(name) == container:
            del self._names[name]
        self._documents.pop(container, None)
