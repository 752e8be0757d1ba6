"""A process that is killed at a chosen step: ``python -m tests.system.disks.victim ROOT STEP WHO``.

``WHO`` is "us" (the whole process gets SIGKILL), "worker" or "daemon" (its
children do, and the error that follows is what the exit code tells).
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from portlayer.errors import PortLayerError
from portlayer.storage import ContainerDisks, ImageStore, VolumeStores
from tests.system.disks.lab import DISK_BYTES, OWNER, container_id, digest, stream
from tests.system.disks.matrix import LAYER, SURVIVED


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def kill(who: str) -> None:
    if who == "us":
        os.kill(os.getpid(), signal.SIGKILL)
    for worker in children(os.getpid()):
        if who == "stop":  # a child that cannot see that we are gone
            os.kill(worker, signal.SIGSTOP)
            kill("us")
        for victim in children(worker) if who == "daemon" else [worker]:
            os.kill(victim, signal.SIGKILL)


async def main(root: Path, wanted: str, who: str) -> int:
    def step(name: str) -> None:
        if name == wanted:
            kill(who)

    async def chunks():
        count = 0
        async for chunk in stream(LAYER, 1 << 18):
            yield chunk
            count += 1
            if count == 20:
                step("layer:streaming")

    images = ImageStore(root / "layers", owner=OWNER, disk_bytes=DISK_BYTES, step=step)
    disks = ContainerDisks(root / "containers", images, owner=OWNER, step=step)
    volumes = VolumeStores({"default": root / "volumes"}, owner=OWNER, step=step)
    try:
        await images.open()
        await disks.open([container_id(1)])
        await volumes.open()
        await images.put(chain_id=digest(LAYER), parent="", diff_id=digest(LAYER), labels={}, chunks=chunks())
        await disks.create(container_id(1), layer=digest(LAYER), disk_bytes=0)
        async with disks.offline(container_id(1), writable=True) as tree:
            step("offline:open")
            await tree.copy_in(b"/", stream(LAYER), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
            step("offline:written")
        await volumes.create(
            name="vol",
            driver="",
            options={"capacity": "64m"},
            labels={},
            anonymous=False,
            metadata=b"",
            created_at=1,
        )
        await volumes.remove("vol")
        await disks.remove(container_id(1))
        await images.remove(digest(LAYER), users=[])
    except PortLayerError as error:
        print(error)
        return SURVIVED
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
