"""A layer's bytes on their way into the disk: digested as they pass, never kept."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason

__all__ = ["LayerStream"]

_END_OF_ARCHIVE = 1024  # two zero blocks
_AT_ONCE = 1 << 20  # bytes digested before other tasks may run


class LayerStream:
    """Wraps the caller's chunks. Read :meth:`chunks` to the end, then :meth:`verify`."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self._head = b""
        self.size = 0  # bytes that have passed

    async def is_empty(self) -> bool:
        """True when the archive has no entries: it is over, or begins with its end."""
        while len(self._head) < _END_OF_ARCHIVE:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                break
            self._head += chunk
        return not any(self._head[:_END_OF_ARCHIVE])

    async def drain(self) -> None:
        async for _ in self.chunks():
            pass

    def verify(self, diff_id: str) -> None:
        """After the last chunk.

        Raises:
            PortLayerError: BAD_LAYER.
        """
        actual = f"sha256:{self._digest.hexdigest()}"
        if actual != diff_id:
            raise PortLayerError(Reason.BAD_LAYER, f"the layer's digest is {actual}, expected {diff_id}")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All chunks, once."""
        if self._head:
            self._digest.update(self._head)
            self.size += len(self._head)
            yield self._head
            self._head = b""
        async for chunk in self._chunks:
            view = memoryview(chunk)
            self.size += len(view)
            for start in range(0, len(view), _AT_ONCE):
                self._digest.update(view[start : start + _AT_ONCE])
            yield chunk
