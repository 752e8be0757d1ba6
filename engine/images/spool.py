"""Files for what cannot be streamed: layers downloaded ahead of their turn, archives being loaded.

They live on the VCH's own disk, without a name (an unlinked file goes with its last descriptor), so
a killed engine leaves nothing. Together they hold at most ``limit`` bytes of layers ahead of their turn.
What the disk refuses is an InternalError in its own words: a full disk ends the pull, not the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import TracebackType

from engine.http import InternalError

__all__ = ["Spool", "SpoolFile"]

_CHUNK = 1 << 20


class Spool:
    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._free = limit

    def reserve(self, size: int) -> bool:
        """Room for a layer ahead of its turn; `release` gives it back."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def release(self, size: int) -> None:
        self._free += size

    def file(self) -> SpoolFile:
        return SpoolFile(self._directory)


@contextlib.contextmanager
def _reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InternalError(
            f"cannot spool in {directory}: {os.strerror(error.errno or 0).lower()}"
        ) from error


class SpoolFile:
    """Written from the front; `tail` reads along behind the writer. Writes and reads block: threads only."""

    def __init__(self, directory: Path) -> None:
        with _reported(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._directory = directory
        self._size = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> SpoolFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            with _reported(self._directory):
                written = os.pwrite(self._descriptor, view, self._size)
            self._size += written
            view = view[written:]

    def read(self, offset: int, size: int) -> bytes:
        with _reported(self._directory):
            return os.pread(self._descriptor, size, offset)

    def overwrite(self, offset: int, data: bytes) -> None:
        """Replace bytes that are there."""
        with _reported(self._directory):
            os.pwrite(self._descriptor, data, offset)

    # in the event loop
    async def content(self) -> AsyncGenerator[bytes, None]:
        """What is there, of a file that nobody writes any more."""
        for offset in range(0, self._size, _CHUNK):
            yield await asyncio.to_thread(self.read, offset, min(_CHUNK, self._size - offset))

    def written(self) -> None:
        """Tell readers that there is more."""
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """Readers raise it instead of what is left."""
        self._error = error
        self._changed.set()

    async def tail(self) -> AsyncGenerator[bytes, None]:
        """The whole content, waiting for what is not there yet. One reader at a time."""
        offset = 0
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            ready = self._size
            if offset < ready:
                data = await asyncio.to_thread(self.read, offset, min(_CHUNK, ready - offset))
                offset += len(data)
                yield data
            elif self._ended:
                return
            else:
                await self._changed.wait()
