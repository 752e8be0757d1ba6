"""A stopped container's file system, as ``docker cp`` needs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage.failures import translated
from portlayer.storage.worker import Worker
from tether.tether_pb2 import PathStat
from tether.users import UserError, resolve_user

__all__ = ["OfflineRoot"]

_MAX_DATABASE = 1 << 20  # bytes of /etc/passwd that are looked at


class OfflineRoot:
    """Every path is resolved inside the root, by the child that has it mounted. One call at a time."""

    def __init__(self, worker: Worker, place: Path) -> None:
        self._worker = worker
        self._place = place
        self._turn = asyncio.Lock()

    async def stat(self, path: bytes) -> PathStat:
        """
        Raises:
            PortLayerError: NO_SUCH_PATH
        """
        async with self._turn:
            with translated(_shown(path), place=self._place):
                found = await self._worker.call("stat", path=os.fsdecode(path))
        return PathStat(
            name=os.fsencode(found["name"]),
            size=found["size"],
            mode=found["mode"],
            mtime=max(found["mtime"], 0),
            link_target=os.fsencode(found["link_target"]),
        )

    async def copy_out(self, path: bytes) -> AsyncIterator[bytes]:
        """A tar of ``path``, its base name as the top entry.

        Raises:
            PortLayerError: NO_SUCH_PATH
        """
        async with self._turn:
            with translated(_shown(path), place=self._place):
                download = self._worker.download("pack", path=os.fsdecode(path))
                async with contextlib.aclosing(download) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def copy_in(
        self,
        path: bytes,
        chunks: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
        user: str = "",
    ) -> None:
        """Unpack an archive into the existing directory ``path``.

        The archive's owners are kept, as Docker does. ``copy_uid_gid`` gives
        everything to ``user`` instead, the container's own, if it has one.

        Raises:
            PortLayerError: UNSPECIFIED (no such user), NO_SUCH_PATH, IS_DIRECTORY_CONFLICT,
                BAD_LAYER (malformed archive), NO_SPACE, NOT_SUPPORTED (a read-only volume)
        """
        async with self._turn:
            with translated(_shown(path), place=self._place):
                owner = await self._owner(user) if user and copy_uid_gid else None
                await self._worker.upload(
                    "unpack",
                    chunks,
                    path=os.fsdecode(path),
                    no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
                    owner=owner,
                )

    async def _owner(self, user: str) -> tuple[int, int]:
        passwd, group = await self._read("/etc/passwd"), await self._read("/etc/group")
        try:
            identity = resolve_user(user, (), passwd=passwd, group=group)
        except UserError as error:
            raise PortLayerError(Reason.UNSPECIFIED, str(error)) from error
        return identity.uid, identity.gid

    async def _read(self, path: str) -> bytes:
        """A small file; nothing when there is none."""
        content = b""
        async with contextlib.aclosing(
            self._worker.download("read", path=path, limit=_MAX_DATABASE)
        ) as chunks:
            async for chunk in chunks:
                content += chunk
        return content


def _shown(path: bytes) -> str:
    return path[:200].decode("utf-8", "backslashreplace")
