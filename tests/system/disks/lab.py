"""What the storage tests share: stores, archives, and an independent view of a disk.

The view does not go through the code under test: ``qemu-img`` makes the chain a
raw file, ``e2fsck`` checks it, the kernel mounts it read-only.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from portlayer.storage import ContainerDisks, ImageStore, VolumeStores, durable

OWNER = (12345, 12346)
DISK_BYTES = 2 << 30


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def stream(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def container_id(number: int) -> str:
    return f"{number:064x}"


async def cancel_after(patch: pytest.MonkeyPatch, step: str, call: Coroutine[Any, Any, Any]) -> None:
    """Cancel ``call`` when its thread has done ``durable.<step>`` and not come back from it yet."""
    done, go_on = threading.Event(), threading.Event()
    original = getattr(durable, step)

    def slow(*arguments: Any) -> None:
        original(*arguments)
        done.set()
        assert go_on.wait(30)

    patch.setattr(durable, step, slow)
    task = asyncio.create_task(call)
    await asyncio.to_thread(done.wait, 30)
    task.cancel()
    for _ in range(10):  # whoever gives up at once does so now
        await asyncio.sleep(0)
    go_on.set()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Lab:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "vch"
        self._mounted: list[Path] = []

    # -- stores

    async def images(self, **options: object) -> ImageStore:
        store = ImageStore(self.root / "layers", owner=OWNER, disk_bytes=DISK_BYTES, **options)
        await store.open()
        return store

    async def disks(
        self, images: ImageStore, *, live: list[str] | None = None, **options: object
    ) -> ContainerDisks:
        disks = ContainerDisks(self.root / "containers", images, owner=OWNER, **options)
        await disks.open(live or [])
        return disks

    async def volumes(self, **options: object) -> VolumeStores:
        stores = {"default": self.root / "volumes", "other": self.root / "more"}
        volumes = VolumeStores(stores, owner=OWNER, **options)
        await volumes.open()
        return volumes

    async def put(self, images: ImageStore, data: bytes, parent: str = "") -> str:
        """A layer; returns its chain ID."""
        diff = digest(data)
        chain = digest(f"{parent} {diff}".encode()) if parent else diff
        await images.put(chain_id=chain, parent=parent, diff_id=diff, labels={}, chunks=stream(data))
        return chain

    # -- an independent view

    @contextlib.contextmanager
    def mounted(self, disk: Path) -> Iterator[Path]:
        """The file system of a disk with its chain, checked, read-only."""
        raw = self.path / "view.raw"
        place = self.path / "view"
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", disk, raw)
        run("e2fsck", "-fn", raw)
        place.mkdir()
        run("mount", "-o", "loop,ro,noload", raw, place)
        try:
            yield place
        finally:
            run("umount", place)
            place.rmdir()
            raw.unlink()

    def chain(self, disk: Path) -> list[Path]:
        """Disk and parents, as QEMU resolves them."""
        info = json.loads(run("qemu-img", "info", "--backing-chain", "--output=json", disk))
        return [Path(link["filename"]).resolve() for link in info]

    def small_disk(self, size: str) -> None:
        """Put the stores on a disk that is soon full."""
        self.root.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", self.root)
        self._mounted.append(self.root)

    # -- what is left

    def workers(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes()
                    if os.fsencode(self.root) in words and int(entry.name) != os.getpid():
                        found.append(int(entry.name))
        return found

    def loops(self) -> list[str]:
        found = []
        for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if str(self.root) in entry.read_text():
                    found.append(str(entry))
        return found

    def unfinished(self) -> list[str]:
        return [str(path) for path in self.root.rglob(".new-*")]

    def assert_nothing_left(self) -> None:
        assert (self.workers(), self.loops(), self.unfinished()) == ([], [], [])
        assert str(self.root / "layers") not in Path("/proc/mounts").read_text()

    def wait(self, condition: Callable[[], bool]) -> None:
        """For what the kernel does on its own after a kill; a safety net ends it."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.01)

    def close(self) -> None:
        try:
            self.assert_nothing_left()
        finally:
            for place in self._mounted:
                run("umount", place)
            shutil.rmtree(self.root, ignore_errors=True)
