"""kill -9 at every persisted step, of the port layer and of its children; then a restart finds a legal state."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.archive.support import entry, tar
from tests.system.disks.lab import Lab, container_id, digest, run, stream
from tests.system.disks.matrix import LAYER, STEPS, SURVIVED, WITH_CHILDREN

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parent.parent.parent.parent
CONTAINER = container_id(1)


def victim(lab: Lab, step: str, who: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.disks.victim", lab.root, step, who],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode


async def check(lab: Lab, step: str) -> None:
    """A new process opens the stores: everything is there or not, nothing half, and all of it works."""
    layer, container, volume = STEPS[step]
    images = await lab.images()
    disks = await lab.disks(images, live=[CONTAINER])
    volumes = await lab.volumes()
    # a child that was not even a program of its own when its parent died finds its input closed
    lab.wait(lambda: not lab.workers() and not lab.loops())
    lab.assert_nothing_left()
    assert [info.chain_id for info in images.list()] == ([digest(LAYER)] if layer else [])
    assert disks.path(CONTAINER).exists() == container
    assert [info.name for info in volumes.list()] == (["vol"] if volume else [])
    for disk in (*(info.path for info in images.list()), *((disks.path(CONTAINER),) if container else ())):
        with Recovered(lab, disk) as place:
            assert (place / "etc" / "conf").read_bytes() == b"conf"
    if not layer:
        await lab.put(images, LAYER)
    if not container:
        await disks.create(CONTAINER, layer=digest(LAYER), disk_bytes=0)
    async with disks.offline(CONTAINER, writable=True) as tree:
        await tree.copy_in(
            b"/", stream(tar((entry("after"), b"x"))), no_overwrite_dir_non_dir=False, copy_uid_gid=False
        )
        assert (await tree.stat(b"/after")).size == 1
    assert (b"/after" in [path for path, _ in await disks.diff(CONTAINER)]) is True


class Recovered:
    """A disk as the next guest sees it: its journal replayed, then checked in full."""

    def __init__(self, lab: Lab, disk: Path) -> None:
        self.raw = lab.path / "recovered.raw"
        self.place = lab.path / "recovered"
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", disk, self.raw)

    def __enter__(self) -> Path:
        done = subprocess.run(
            ["e2fsck", "-E", "journal_only", "-fy", self.raw], capture_output=True, check=False
        )
        assert done.returncode in (0, 1), done.stdout
        run("e2fsck", "-fn", self.raw)
        self.place.mkdir()
        run("mount", "-o", "loop,ro,noload", self.raw, self.place)
        return self.place

    def __exit__(self, *error: object) -> None:
        run("umount", self.place)
        self.place.rmdir()
        self.raw.unlink()


@pytest.mark.parametrize("step", STEPS)
async def test_the_port_layer_is_killed(lab: Lab, step: str) -> None:
    assert victim(lab, step, "us") == -signal.SIGKILL
    await check(lab, step)


@pytest.mark.parametrize("who", ["worker", "daemon"])
@pytest.mark.parametrize("step", WITH_CHILDREN)
async def test_a_child_is_killed(lab: Lab, step: str, who: str) -> None:
    assert victim(lab, step, who) == SURVIVED
    lab.wait(lambda: not lab.loops() and not lab.workers())
    lab.assert_nothing_left()
    await check(lab, step)


async def test_opening_kills_what_a_predecessor_left_hanging(lab: Lab) -> None:
    """A child that is stopped cannot see that its parent is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.disks.victim", lab.root, "layer:streaming", "stop"],
        cwd=ROOT,
    )
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert lab.workers()
    assert lab.loops()
    await check(lab, "layer:streaming")
