"""Layers as real VMDK chains, compared with what their archives say."""

import asyncio
import contextlib
import os
import stat
import tarfile
from pathlib import Path

import pytest

import archive
from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import ImageStore
from tests.archive.support import entry, root, snapshot, tar, unpack
from tests.system.disks.lab import DISK_BYTES, OWNER, Lab, cancel_after, container_id, digest, stream

pytestmark = pytest.mark.system

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000").decode("latin-1")
BASE = tar(
    entry(".", tarfile.DIRTYPE, mtime=1_000_000_000),
    entry("bin", tarfile.DIRTYPE, mtime=1_500_000_000),
    (entry("bin/su", mode=0o4755, mtime=1_500_000_001), b"setuid"),
    entry("bin/sudo", tarfile.LNKTYPE, linkname="bin/su"),
    (entry("bin/ping", uid=3, gid=4, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}), b"cap"),
    entry("sbin", tarfile.SYMTYPE, linkname="bin"),
    (entry("sbin/init"), b"through a link"),
    entry("dev", tarfile.DIRTYPE),
    entry("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
    entry("dev/disk", tarfile.BLKTYPE, mode=0o660, devmajor=259, devminor=70000),
    entry("run", tarfile.DIRTYPE),
    entry("run/pipe", tarfile.FIFOTYPE, mode=0o600),
    entry("tmp", tarfile.DIRTYPE, mode=0o1777),
    entry("etc", tarfile.DIRTYPE),
    entry("etc/sub", tarfile.DIRTYPE),
    entry("opt", tarfile.DIRTYPE, mtime=77),
    (entry("etc/old", pax_headers={"mtime": "1234567890.123456789", "SCHILY.xattr.user.note": "kept"}), b"old"),
    (entry("etc/sub/deep"), b"deep"),
    (entry("opt/one"), b"1"),
    (entry("opt/two"), b"2"),
    (entry("n" * 255, uid=100_000, gid=4_000_000_000), b"long"),
    (entry("caf\u00e9 \udcff\n"), b"odd"),
    (entry("big"), os.urandom(3_000_000)),
)  # fmt: skip
CHANGE = tar(
    entry("etc/.wh.old"),
    entry("etc", tarfile.DIRTYPE, mtime=6),
    (entry("etc/new", mode=0o600), b"new"),
    entry("opt", tarfile.DIRTYPE, mtime=78),
    entry("opt/.wh..wh..opq"),
    (entry("opt/three"), b"3"),
    entry("tmp", tarfile.DIRTYPE, mode=0o700, uid=9, mtime=5),
    entry("bin", tarfile.DIRTYPE, mtime=79),
    entry(".", tarfile.DIRTYPE, mtime=1_000_000_001),
    (entry("bin/su", mode=0o755), b"replaced"),
)


def holes(path: Path) -> bytes:
    path.mkdir()
    with (path / "holes").open("wb") as file:
        file.seek(100_000_000)
        file.write(b"end")
    with root(path) as fd:
        return b"".join(archive.pack(fd, b"/."))


async def test_content_is_what_the_archives_say(lab: Lab, tmp_path: Path) -> None:
    images = await lab.images()
    expected = tmp_path / "expected"
    expected.mkdir()
    chain = ""
    for data in (BASE, CHANGE, holes(tmp_path / "holes")):
        chain = await lab.put(images, data, chain)
        unpack(expected, data, layer=True)
        with lab.mounted(images.get(chain).path) as place:
            seen, wanted = snapshot(place), snapshot(expected)
            assert seen.keys() == wanted.keys()
            assert seen == wanted
            if (place / "holes").exists():
                assert (place / "holes").stat().st_blocks < 100
    info = images.get(chain)
    assert info.disk_bytes < 5_000_000
    assert not (expected / "etc" / "old").exists()
    assert sorted(path.name for path in (expected / "opt").iterdir()) == ["three"]


async def test_layers_are_files_that_qemu_may_only_read(lab: Lab) -> None:
    images = await lab.images()
    chain = await lab.put(images, tar((entry("file"), b"x")))
    info = images.get(chain)
    for path, mode in ((info.path, 0o440), (info.path.parent, 0o710), (images.base, 0o440)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 0, OWNER[1])
    assert stat.S_IMODE((lab.root / "layers").stat().st_mode) == 0o711
    assert info.path.parent.name == chain.removeprefix("sha256:")
    assert (info.size, info.empty, info.parent) == (1, False, "")


async def test_a_restart_finds_the_same_layers(lab: Lab) -> None:
    images = await lab.images()
    one = await lab.put(images, tar((entry("file"), b"x")))
    diff = digest(bytes(1024))
    await images.put(
        chain_id="sha256:" + "e" * 64, parent=one, diff_id=diff, labels={"a": "b"}, chunks=stream(bytes(1024))
    )
    await lab.put(images, tar((entry("other"), b"x")), "sha256:" + "e" * 64)
    before = sorted(images.list(), key=lambda info: info.chain_id)
    again = await lab.images()
    assert sorted(again.list(), key=lambda info: info.chain_id) == before
    assert again.get("sha256:" + "e" * 64).labels == {"a": "b"}


async def test_empty_layers_share_their_parents_disk(lab: Lab) -> None:
    images = await lab.images()
    base = await lab.put(images, tar((entry("file"), b"x")))
    empty = await lab.put(images, tar(), base)
    nothing = await lab.put(images, b"")
    assert images.get(empty).empty
    assert images.get(empty).path == images.get(base).path
    assert images.get(empty).disk_bytes == images.get(empty).size == 0
    assert images.get(nothing).path == images.base
    above = await lab.put(images, tar((entry("other"), b"y")), empty)
    with lab.mounted(images.get(above).path) as place:
        assert sorted(path.name for path in place.iterdir()) == ["file", "other"]
    with pytest.raises(PortLayerError, match="expected sha256:eeee"):
        await images.put(
            chain_id=digest(b"?"), parent="", diff_id="sha256:" + "e" * 64, labels={}, chunks=stream(tar())
        )


async def test_twenty_two_layers_are_flattened(lab: Lab) -> None:
    images = await lab.images()
    chain = ""
    for number in range(22):
        chain = await lab.put(
            images, tar((entry(f"file{number}"), b"%d" % number), entry(".wh.file3")), chain
        )
        assert len(lab.chain(images.get(chain).path)) <= 20
    with lab.mounted(images.get(chain).path) as place:
        names = {path.name: path.read_bytes() for path in place.iterdir()}
    assert names == {f"file{number}": b"%d" % number for number in range(22) if number != 3}
    depths = [len(lab.chain(info.path)) for info in (images.get(chain), images.get(images.get(chain).parent))]
    assert depths == [3, 2]
    again = await lab.images()
    assert again.get(chain) == images.get(chain)


@pytest.mark.parametrize("size", [1, 511, 4096, 1 << 20, 1 << 22])
async def test_chunks_of_any_size(lab: Lab, size: int) -> None:
    images = await lab.images()
    data = CHANGE if size < 512 else BASE
    await images.put(
        chain_id=digest(data), parent="", diff_id=digest(data), labels={}, chunks=stream(data, size)
    )
    assert not images.get(digest(data)).empty


class SourceFailed(Exception):
    pass


async def failing(data: bytes, after: int):
    yield data[:after]
    raise SourceFailed


BAD = {
    "wrong digest": (BASE, "sha256:" + "0" * 64, "digest is sha256:"),
    "cut off": (BASE[:700_000], digest(BASE[:700_000]), "cut off"),
    "no archive": (b"\x1f\x8b" + b"z" * 5000, digest(b"\x1f\x8b" + b"z" * 5000), "not a tar header"),
    "leads out": (tar(entry("a"), entry("../x")), digest(tar(entry("a"), entry("../x"))), "leads out"),
    "bad whiteout": (tar(entry(".wh.")), digest(tar(entry(".wh."))), "malformed whiteout"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_layers_leave_nothing(lab: Lab, case: str) -> None:
    images = await lab.images()
    good = await lab.put(images, tar((entry("file"), b"x")))
    data, diff, reason = BAD[case]
    before = sorted((lab.root / "layers").iterdir())
    for _ in range(2):
        with pytest.raises(PortLayerError, match=reason) as caught:
            await images.put(
                chain_id=digest(b"chain"), parent=good, diff_id=diff, labels={}, chunks=stream(data)
            )
        assert caught.value.reason == Reason.BAD_LAYER
        assert sorted((lab.root / "layers").iterdir()) == before
        lab.assert_nothing_left()
    await lab.put(images, CHANGE, good)


@pytest.mark.parametrize("after", [0, 100, 1_500_000])
async def test_a_source_that_fails_leaves_nothing(lab: Lab, after: int) -> None:
    images = await lab.images()
    with pytest.raises(SourceFailed):
        await images.put(
            chain_id=digest(BASE), parent="", diff_id=digest(BASE), labels={}, chunks=failing(BASE, after)
        )
    assert images.list() == []
    lab.assert_nothing_left()
    await lab.put(images, BASE)


async def test_a_cancelled_put_leaves_nothing(lab: Lab) -> None:
    reached = asyncio.Event()

    async def stuck():
        yield BASE[:2_000_000]
        reached.set()
        await asyncio.Event().wait()

    images = await lab.images()
    task = asyncio.create_task(
        images.put(chain_id=digest(BASE), parent="", diff_id=digest(BASE), labels={}, chunks=stuck())
    )
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lab.assert_nothing_left()


async def test_a_put_that_is_cancelled_too_late_has_happened(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = await lab.images()
    with monkeypatch.context() as patch:
        await cancel_after(patch, "publish", lab.put(images, BASE))
    assert [info.chain_id for info in images.list()] == [digest(BASE)]
    await lab.put(images, BASE)


async def test_the_source_is_not_read_faster_than_the_disk_takes_it(lab: Lab) -> None:
    """Bounded memory: with the child stopped, the source is soon left alone."""
    images = await lab.images()
    big = tar((entry("big"), bytes(64 << 20)))
    given = 0
    stopped: list[int] = []

    async def source():
        nonlocal given
        for start in range(0, len(big), 1 << 18):
            given = start
            if start == 1 << 20:
                stopped.extend(lab.workers())
                for pid in stopped:
                    os.kill(pid, 19)
            yield big[start : start + (1 << 18)]

    task = asyncio.create_task(
        images.put(chain_id=digest(big), parent="", diff_id=digest(big), labels={}, chunks=source())
    )
    seen = -1
    while seen != given or not stopped:  # until it makes no progress
        seen = given
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
    assert given < 8 << 20
    for pid in stopped:
        os.kill(pid, 18)
    await task


async def test_one_builds_and_others_wait(lab: Lab) -> None:
    images = await lab.images()
    read = 0

    async def counted():
        nonlocal read
        read += 1
        async for chunk in stream(BASE):
            yield chunk

    infos = await asyncio.gather(
        *(
            images.put(chain_id=digest(BASE), parent="", diff_id=digest(BASE), labels={}, chunks=counted())
            for _ in range(5)
        )
    )
    assert read == 1
    assert all(info == infos[0] for info in infos)


async def test_when_the_first_fails_the_next_one_builds(lab: Lab) -> None:
    images = await lab.images()
    arguments = {"chain_id": digest(BASE), "parent": "", "diff_id": digest(BASE), "labels": {}}
    first = asyncio.create_task(images.put(**arguments, chunks=failing(BASE, 1_000_000)))
    second = asyncio.create_task(images.put(**arguments, chunks=stream(BASE)))
    with pytest.raises(SourceFailed):
        await first
    assert (await second).chain_id == digest(BASE)


async def test_many_at_once_queue_for_few_loop_devices(lab: Lab) -> None:
    images = await lab.images()
    base = await lab.put(images, tar((entry("base"), b"x")))
    archives = [tar((entry(f"file{number}"), os.urandom(200_000))) for number in range(12)]
    chains = await asyncio.gather(*(lab.put(images, data, base) for data in archives))
    disks = await lab.disks(images)
    for number, chain in enumerate(chains):
        await disks.create(container_id(number), layer=chain, disk_bytes=0)
    async with contextlib.AsyncExitStack() as stack:  # more than there are nodes in a small /dev
        roots = [
            await stack.enter_async_context(disks.offline(container_id(number), writable=False))
            for number in range(8)
        ]
        more = await asyncio.gather(*(lab.put(images, tar((entry(f"m{n}"), b"x")), base) for n in range(4)))
        for number, each in enumerate(roots):
            assert (await each.stat(b"/file%d" % number)).size == 200_000
    assert len({*chains, *more}) == 16


async def test_removal_follows_the_children(lab: Lab) -> None:
    images = await lab.images()
    base = await lab.put(images, tar((entry("a"), b"x")))
    child = await lab.put(images, tar((entry("b"), b"x")), base)
    for chain, users, words in ((base, [], "child layers"), (child, [child], "used by a container")):
        with pytest.raises(PortLayerError, match=words) as caught:
            await images.remove(chain, users=users)
        assert caught.value.reason == Reason.LAYER_IN_USE
    await images.remove(child, users=[base])
    await images.remove(base, users=[])
    assert images.list() == []
    with pytest.raises(PortLayerError) as caught:
        images.get(base)
    assert caught.value.reason == Reason.NO_SUCH_LAYER
    assert sorted(path.name for path in (lab.root / "layers").iterdir()) == [".work", f"base-{DISK_BYTES}"]


async def test_a_parent_stays_while_a_child_is_made(lab: Lab) -> None:
    images = await lab.images()
    base = await lab.put(images, tar((entry("a"), b"x")))
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        yield CHANGE[:1024]
        reached.set()
        await go_on.wait()
        yield CHANGE[1024:]

    task = asyncio.create_task(
        images.put(chain_id=digest(b"c"), parent=base, diff_id=digest(CHANGE), labels={}, chunks=slow())
    )
    await reached.wait()
    with pytest.raises(PortLayerError) as caught:
        await images.remove(base, users=[])
    assert caught.value.reason == Reason.LAYER_IN_USE
    go_on.set()
    await task


async def test_export_gives_the_very_same_bytes(lab: Lab) -> None:
    images = await lab.images()
    base = await lab.put(images, BASE)
    child = await lab.put(images, CHANGE, base)
    empty = await lab.put(images, bytes(10240), child)
    for layer, data in ((base, BASE), (child, CHANGE), (empty, bytes(10240))):
        assert b"".join([chunk async for chunk in images.export(layer)]) == data
        assert images.get(layer).archive_size == len(data)
    again = await lab.images()  # as a restart finds them
    assert b"".join([chunk async for chunk in again.export(child)]) == CHANGE
    skeletons = [images.get(layer).path.with_name("skeleton") for layer in (base, child)]
    skeletons[1].write_bytes(skeletons[0].read_bytes())
    with pytest.raises(PortLayerError, match="cannot be made again"):
        async for _ in again.export(child):
            pass


async def test_a_full_disk_is_said_so_and_harms_nobody(lab: Lab) -> None:
    lab.small_disk("48m")
    images = await lab.images()
    good = await lab.put(images, tar((entry("file"), b"x")))
    big = tar((entry("big"), os.urandom(60_000_000)))
    for _ in range(2):
        with pytest.raises(PortLayerError, match="no space left") as caught:
            await lab.put(images, big, good)
        assert caught.value.reason == Reason.NO_SPACE
        lab.assert_nothing_left()
    many = tar(*((entry(f"d{number}/file"), os.urandom(2000)) for number in range(20_000)))
    with pytest.raises(PortLayerError) as caught:
        await lab.put(images, many, good)
    assert caught.value.reason == Reason.NO_SPACE
    fine = await lab.put(images, tar((entry("other"), b"y")), good)
    with lab.mounted(images.get(fine).path) as place:
        assert (place / "other").read_bytes() == b"y"


async def test_a_full_file_system_is_no_space_too(lab: Lab) -> None:
    images = ImageStore(lab.root / "layers", owner=OWNER, disk_bytes=64 << 20)
    await images.open()
    with pytest.raises(PortLayerError, match="No space left") as caught:
        await lab.put(images, tar((entry("big"), os.urandom(70_000_000))))
    assert caught.value.reason == Reason.NO_SPACE


@pytest.mark.parametrize("victim", ["layer.json", "disk.vmdk", "parent"])
async def test_damaged_layers_are_left_out_and_can_be_put_again(
    lab: Lab, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = await lab.images()
    base = await lab.put(images, BASE)
    child = await lab.put(images, CHANGE, base)
    directory = images.get(base if victim == "parent" else child).path.parent
    (directory / ("layer.json" if victim == "parent" else victim)).unlink()
    again = await lab.images()
    assert {info.chain_id for info in again.list()} == (set() if victim == "parent" else {base})
    assert "left out" in caplog.text
    assert await lab.put(again, BASE) == base
    assert await lab.put(again, CHANGE, base) == child
    with lab.mounted(again.get(child).path) as place:
        assert (place / "opt" / "three").read_bytes() == b"3"


@pytest.mark.parametrize(
    ("name", "value"), [("chain_id", "x"), ("chain_id", "sha256:../../etc"), ("parent", "x"), ("diff_id", "")]
)
async def test_malformed_names_are_refused(lab: Lab, name: str, value: str) -> None:
    images = await lab.images()
    arguments = {"chain_id": digest(BASE), "parent": "", "diff_id": digest(BASE), name: value}
    with pytest.raises(PortLayerError, match="malformed"):
        await images.put(**arguments, labels={}, chunks=stream(BASE))


async def test_missing_parents_are_refused(lab: Lab) -> None:
    images = await lab.images()
    with pytest.raises(PortLayerError) as caught:
        await lab.put(images, BASE, "sha256:" + "9" * 64)
    assert caught.value.reason == Reason.NO_SUCH_LAYER
