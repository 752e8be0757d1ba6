"""Container disks: what one container writes, on top of its image's chain.

While its VM is off, a disk can be opened here. Reading never changes it: a
file system that was not unmounted cleanly is repaired in a throw-away child.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.offline import vmdk
from portlayer.portlayer_pb2 import DiffEntry, Reason
from portlayer.storage import durable
from portlayer.storage.copies import copy_file
from portlayer.storage.disklocks import DiskLocks
from portlayer.storage.failures import translated
from portlayer.storage.images import ImageStore
from portlayer.storage.offlineroot import OfflineRoot
from portlayer.storage.worker import Worker, Workshop

__all__ = ["ContainerDisks", "OfflineRoot"]

_SLOTS = 8
_ID = re.compile(r"[0-9a-f]{64}")
_KINDS = {b"C": DiffEntry.MODIFIED, b"A": DiffEntry.ADDED, b"D": DiffEntry.DELETED}


def _no_step(name: str) -> None:
    pass


class ContainerDisks:
    """All container disks of one VCH. ``owner``: user and group QEMU runs as; the disks are theirs."""

    def __init__(
        self,
        root: Path,
        images: ImageStore,
        *,
        owner: tuple[int, int],
        step: Callable[[str], None] = _no_step,
    ) -> None:
        self._root = root
        self._images = images
        self._owner = owner
        self._step = step
        self._workshop = Workshop(root, slots=_SLOTS)
        self._locks = DiskLocks()

    async def open(self, live: Collection[str]) -> None:
        """Sweep what was half-made, and the disks of containers that are not in ``live``."""
        with translated(f"container disks {self._root}", place=self._root.parent):
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o711)
            await self._workshop.open()
            await asyncio.to_thread(durable.sweep, self._root)
            for path in list(self._root.iterdir()):
                if _ID.fullmatch(path.name) and path.name not in live:
                    await asyncio.to_thread(durable.remove, path)

    async def create(self, container: str, *, layer: str, disk_bytes: int) -> Path:
        """Make a container's disk on a layer ("" = an empty file system).

        ``disk_bytes`` 0 means the size the image store was made with; a larger
        disk has a file system that fills it.

        Raises:
            PortLayerError: NO_SUCH_LAYER, NAME_IN_USE, NO_SPACE, NOT_SUPPORTED (smaller than the image's)
        """
        target = self._directory(container)
        below = self._images.get(layer).path if layer else self._images.base
        if target.exists():
            raise PortLayerError(Reason.NAME_IN_USE, f"container {container} has a disk already")
        what = f"disk of container {container}"
        with translated(what, place=self._root):
            present = vmdk.read_descriptor(below).capacity
            if 0 < disk_bytes < present:
                message = (
                    f"a disk of {disk_bytes} bytes is smaller than its image's file system ({present} bytes)"
                )
                raise PortLayerError(Reason.NOT_SUPPORTED, message)
            with durable.new_directory(self._root) as directory, translated(what, place=self._root):
                self._step("container:directory")
                disk = directory / "disk.vmdk"
                vmdk.create(disk, parent=below, capacity=disk_bytes)
                if disk_bytes > present:
                    async with self._workshop.session() as worker:
                        await worker.call("grow", path=str(disk))
                self._step("container:disk")
                await asyncio.to_thread(self._publish, directory, target, layer)
        self._step("container:published")
        return target / "disk.vmdk"

    async def remove(self, container: str) -> None:
        """Remove a container's disk; no error when there is none."""
        path = self.path(container)
        async with self._locks.hold([path]):
            self._step("container:removing")
            with translated(f"disk of container {container}", place=self._root):
                await asyncio.to_thread(durable.remove, path.parent)

    def path(self, container: str) -> Path:
        return self._directory(container) / "disk.vmdk"

    async def size(self, container: str) -> tuple[int, int]:
        """(bytes the container's own disk takes, the same plus its image's content)"""
        layer = self._layer(container)
        own = self.path(container).stat().st_blocks * 512
        total = own
        while layer:
            info = self._images.get(layer)
            total += info.size
            layer = info.parent
        return own, total

    # -- offline

    @contextlib.asynccontextmanager
    async def offline(
        self, container: str, *, volumes: Sequence[tuple[Path, str, bool]] = (), writable: bool
    ) -> AsyncIterator[OfflineRoot]:
        """Open the disk of a container whose VM is off.

        ``volumes`` are (disk, destination, read-only), shown at their
        destinations. What was written is on disk at the end, also when the
        body ends with an exception.

        Raises:
            PortLayerError: NO_SUCH_CONTAINER; ALREADY_RUNNING: a VM has one of the disks.
        """
        self._layer(container)
        disk = self.path(container)
        async with self._locks.hold([disk, *(path for path, _, _ in volumes)]):
            with translated(f"disk of container {container}", place=self._root, body_is_foreign=True):
                async with self._workshop.session(keep=writable) as worker:
                    await self._mount(worker, disk, volumes, writable=writable)
                    yield OfflineRoot(worker, self._root)

    @contextlib.asynccontextmanager
    async def picture(self, container: str) -> AsyncIterator[Path]:
        """A copy of the disk as its file is now, for :meth:`diff` and :meth:`export_diff`.

        The caller sees to it that nobody writes until this has entered. The copy is
        gone at the end, or swept by the next :meth:`open`.
        """
        self._layer(container)
        with contextlib.ExitStack() as stack:
            with translated(f"picture of container {container}", place=self._root):
                directory = stack.enter_context(durable.new_directory(self._root))
                stack.callback(shutil.rmtree, directory)
                await copy_file(self.path(container), directory / "disk.vmdk")
            self._step("container:copied")
            yield directory / "disk.vmdk"

    async def diff(
        self, container: str, *, picture: Path | None = None
    ) -> list[tuple[bytes, DiffEntry.Kind.ValueType]]:
        """What the container changed relative to its image, as ``docker diff`` shows it."""
        listing = bytearray()
        async for chunk in self._against_image(container, "changes", picture):
            listing += chunk
        return [(record[1:], _KINDS[record[:1]]) for record in bytes(listing).split(b"\0") if record]

    def export_diff(self, container: str, *, picture: Path | None = None) -> AsyncIterator[bytes]:
        """The same as a layer's archive (``docker commit``)."""
        return self._against_image(container, "export_changes", picture)

    async def _against_image(self, container: str, verb: str, picture: Path | None) -> AsyncIterator[bytes]:
        self._layer(container)
        disk = picture or self.path(container)
        below = vmdk.parent_of(disk)
        async with self._locks.hold([disk]):
            with translated(f"disk of container {container}", place=self._root):
                async with self._workshop.session() as worker:
                    await worker.call("mount", name="lower", path=str(below), mode="read")
                    await worker.call("mount", name="root", path=str(disk), mode="read")
                    async with contextlib.aclosing(worker.download(verb)) as chunks:
                        async for chunk in chunks:
                            yield chunk

    async def _mount(
        self, worker: Worker, disk: Path, volumes: Sequence[tuple[Path, str, bool]], *, writable: bool
    ) -> None:
        mode = "write" if writable else "read"
        # a volume's mount point may be missing: it is made in the container, or in the throw-away child
        scratch = bool(volumes) and not writable
        await worker.call("mount", name="root", path=str(disk), mode=mode, scratch=scratch)
        names: dict[Path, str] = {}
        for path, _, read_only in sorted(volumes, key=lambda volume: volume[2]):  # writable ones first
            if path not in names:
                names[path] = f"volume{len(names)}"
                how = "read" if read_only else mode
                await worker.call("mount", name=names[path], path=str(path), mode=how)
        # parents before what is mounted inside them
        for path, destination, read_only in sorted(volumes, key=lambda volume: volume[1]):
            protect = read_only or not writable
            await worker.call("bind", source=names[path], destination=destination, read_only=protect)

    # -- files

    def _publish(self, directory: Path, target: Path, layer: str) -> None:
        disk = directory / "disk.vmdk"
        os.chown(disk, *self._owner)
        os.chown(directory, 0, self._owner[1])
        fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        durable.write_file(directory / "container.json", json.dumps({"layer": layer}).encode())
        durable.publish(directory, target)

    def _layer(self, container: str) -> str:
        try:
            document = json.loads((self._directory(container) / "container.json").read_text())
        except FileNotFoundError:
            raise PortLayerError(
                Reason.NO_SUCH_CONTAINER, f"there is no disk of container {container}"
            ) from None
        return str(document["layer"])

    def _directory(self, container: str) -> Path:
        if not _ID.fullmatch(container):
            raise PortLayerError(Reason.NO_SUCH_CONTAINER, f"malformed container ID {container[:80]!r}")
        return self._root / container
