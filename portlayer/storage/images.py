"""Image layers as a tree of disks.

A layer's disk is a VMDK child of its parent's, an ext4 file system with the
whole content up to this layer; the chain ID names it. All chains start at one
formatted template. A layer without entries has no disk: it shares its
parent's. The 21st disk of a chain is a flattened copy, chain and layer in one
disk, so that no read goes through more than twenty.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from portlayer.errors import PortLayerError
from portlayer.offline import vmdk
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import durable
from portlayer.storage.failures import translated
from portlayer.storage.layerindex import LayerInfo, StoredLayer, decode_layer, layer_directory, read_layers
from portlayer.storage.layerstream import LayerStream
from portlayer.storage.worker import Workshop, uninterrupted

__all__ = ["ImageStore", "LayerInfo"]

MAX_DEPTH = 20  # disks in a chain
_SLOTS = 4
_CHAIN_ID = re.compile(r"sha256:[0-9a-f]{64}")
_ZEROS = 1 << 20


def _no_step(name: str) -> None:
    pass


class ImageStore:
    """All layers of one VCH.

    ``owner``: user and group QEMU runs as; it may read the disks. ``disk_bytes``:
    size of the file system that chains start with. ``step`` is called with the
    name of every step that changes what a restart would find.
    """

    def __init__(
        self, root: Path, *, owner: tuple[int, int], disk_bytes: int, step: Callable[[str], None] = _no_step
    ) -> None:
        self._root = root
        self._owner = owner
        self._disk_bytes = disk_bytes
        self._step = step
        self._workshop = Workshop(root, slots=_SLOTS)
        self._layers: dict[str, StoredLayer] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._building: Counter[str] = Counter()  # parents of layers being made

    @property
    def base(self) -> Path:
        """The empty file system."""
        return self._root / f"base-{self._disk_bytes}" / "disk.vmdk"

    async def open(self) -> None:
        """Sweep, make the template when there is none, read what is there.

        A layer that is damaged (by somebody else: we publish whole ones) is
        reported and left out, as are those that stand on it. It stays on disk
        until a layer of its name is put again.
        """
        with translated(f"image store {self._root}", place=self._root.parent):
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o711)
            await self._workshop.open()
            await asyncio.to_thread(durable.sweep, self._root)
            if not self.base.exists():
                await self._make_base()
            self._layers = await asyncio.to_thread(read_layers, self._root, self.base)

    # -- layers

    async def put(
        self,
        *,
        chain_id: str,
        parent: str,
        diff_id: str,
        labels: Mapping[str, str],
        chunks: AsyncIterator[bytes],
    ) -> LayerInfo:
        """Make a layer from its uncompressed archive, as the chunks come.

        The end of ``chunks`` commits. When it raises, or anything else goes
        wrong, nothing remains. A layer that exists is returned without
        reading ``chunks``; so is one that somebody else is just making, when
        it is there.

        Raises:
            PortLayerError: BAD_LAYER, NO_SPACE, NO_SUCH_LAYER (the parent)
        """
        for name, value in (("chain ID", chain_id), ("diff ID", diff_id), ("parent", parent)):
            if not _CHAIN_ID.fullmatch(value) and (value or name != "parent"):
                raise PortLayerError(Reason.BAD_LAYER, f"malformed {name} {value[:80]!r}")
        lock = self._locks.setdefault(chain_id, asyncio.Lock())
        async with lock:
            if chain_id in self._layers:
                return self.get(chain_id)
            if parent:
                self._layer(parent)
            self._building[parent] += 1
            try:
                layer = await self._build(
                    chain_id=chain_id,
                    parent=parent,
                    diff_id=diff_id,
                    labels=labels,
                    stream=LayerStream(chunks),
                )
            finally:
                self._building[parent] -= 1
            return layer.info

    def list(self) -> list[LayerInfo]:
        return [layer.info for layer in self._layers.values()]

    def get(self, chain_id: str) -> LayerInfo:
        return self._layer(chain_id).info

    async def remove(self, chain_id: str, *, users: Collection[str]) -> None:
        """Remove a layer nobody stands on. ``users``: chain IDs that containers stand on.

        Raises:
            PortLayerError: NO_SUCH_LAYER, LAYER_IN_USE
        """
        self._layer(chain_id)
        if chain_id in users:
            raise PortLayerError(Reason.LAYER_IN_USE, f"layer {chain_id} is used by a container")
        if self._building[chain_id] or any(layer.info.parent == chain_id for layer in self._layers.values()):
            raise PortLayerError(Reason.LAYER_IN_USE, f"layer {chain_id} has child layers")
        del self._layers[chain_id]
        self._step("layer:removing")
        with translated(f"layer {chain_id}", place=self._root):
            await asyncio.to_thread(durable.remove, self._directory(chain_id))

    async def export(self, chain_id: str) -> AsyncGenerator[bytes, None]:
        """The archive that the layer came as, byte for byte.

        Raises:
            PortLayerError: NO_SUCH_LAYER; BAD_LAYER (at its end): the bytes are not the original's.
        """
        info = self.get(chain_id)
        if not info.archive_size:
            raise PortLayerError(
                Reason.NOT_SUPPORTED,
                f"layer {chain_id} was stored by an earlier version, which did not keep what its archive "
                "looked like: remove the image and pull or load it again",
            )
        digest = hashlib.sha256()
        async with contextlib.aclosing(self._archive(info)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                yield chunk
        if f"sha256:{digest.hexdigest()}" != info.diff_id:
            raise PortLayerError(
                Reason.BAD_LAYER,
                f"the archive of layer {chain_id} cannot be made again: its digest would be "
                f"sha256:{digest.hexdigest()}, not {info.diff_id}",
            )

    async def _archive(self, info: LayerInfo) -> AsyncGenerator[bytes, None]:
        if info.empty:
            for start in range(0, info.archive_size, _ZEROS):
                yield bytes(min(_ZEROS, info.archive_size - start))
            return
        directory = self._directory(info.chain_id)
        with translated(f"layer {info.chain_id}", place=self._root):
            async with self._workshop.session() as worker:
                await worker.call("mount", name="root", path=str(info.path), mode="read")
                skeleton = {name: str(directory / name) for name in ("skeleton", "replaced")}
                async with contextlib.aclosing(worker.download("export_layer", **skeleton)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    # -- making

    async def _build(
        self, *, chain_id: str, parent: str, diff_id: str, labels: Mapping[str, str], stream: LayerStream
    ) -> StoredLayer:
        document: dict[str, Any] = {
            "version": 1,
            "chain_id": chain_id,
            "parent": parent,
            "diff_id": diff_id,
            "labels": dict(labels),
        }
        what = f"layer {chain_id}"
        # translated twice: whether the disk is full shows only while the failed attempt is still there
        with (
            translated(what, place=self._root),
            durable.new_directory(self._root) as directory,
            translated(what, place=self._root),
        ):
            self._step("layer:directory")
            depth = self._layers[parent].depth if parent else 1
            if await stream.is_empty():
                await stream.drain()
                stream.verify(diff_id)
                document |= {"empty": True, "size": 0, "archive_size": stream.size, "depth": depth}
            else:
                flat = depth >= MAX_DEPTH
                sizes = await self._apply(directory, parent, stream, diff_id, flat=flat)
                document |= {"empty": False, **sizes, "depth": 1 if flat else depth + 1}
            layer = await uninterrupted(self._make_known(directory, chain_id, document))
        self._step("layer:published")
        return layer

    async def _make_known(self, directory: Path, chain_id: str, document: dict[str, Any]) -> StoredLayer:
        await asyncio.to_thread(self._publish, directory, self._directory(chain_id), "layer.json", document)
        layer = decode_layer(document, self._root, self._layers, self.base)
        self._layers[chain_id] = layer
        return layer

    async def _apply(
        self, directory: Path, parent: str, stream: LayerStream, diff_id: str, *, flat: bool
    ) -> dict[str, int]:
        below = self.get(parent).path if parent else self.base
        disk = directory / "disk.vmdk"
        async with self._workshop.session() as worker:
            if flat:
                await worker.call("flatten", source=str(below), target=str(disk))
            else:
                vmdk.create(disk, parent=below)
            self._step("layer:disk")
            await worker.call("mount", name="root", path=str(disk), mode="build")
            self._step("layer:mounted")
            async with contextlib.aclosing(stream.chunks()) as chunks:
                skeleton = {name: str(directory / name) for name in ("skeleton", "replaced")}
                sizes = await worker.upload("unpack_layer", chunks, **skeleton)
            self._step("layer:unpacked")
            stream.verify(diff_id)
        self._step("layer:closed")
        return sizes

    async def _make_base(self) -> None:
        what = f"image store {self._root}"
        with durable.new_directory(self._root) as directory, translated(what, place=self._root):
            disk = directory / "disk.vmdk"
            vmdk.create(disk, capacity=self._disk_bytes)
            async with self._workshop.session() as worker:
                await worker.call("format", path=str(disk), label="mooring", directory="")
            self._step("base:formatted")
            await asyncio.to_thread(self._publish, directory, self.base.parent, None, {})

    def _publish(self, directory: Path, target: Path, name: str | None, document: dict[str, Any]) -> None:
        disk = directory / "disk.vmdk"
        if disk.exists():
            os.chown(disk, 0, self._owner[1])
            disk.chmod(0o440)
        os.chown(directory, 0, self._owner[1])
        if name is not None:
            durable.write_file(directory / name, json.dumps(document, indent=1).encode())
        self._step("layer:described")
        durable.remove(target)  # there only when it was damaged
        durable.publish(directory, target)

    def _layer(self, chain_id: str) -> StoredLayer:
        try:
            return self._layers[chain_id]
        except KeyError:
            raise PortLayerError(Reason.NO_SUCH_LAYER, f"no such layer: {chain_id[:80]}") from None

    def _directory(self, chain_id: str) -> Path:
        return layer_directory(self._root, chain_id)
