"""Container disks: on their layers, opened offline, compared with their image."""

import asyncio
import contextlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import DiffEntry, Reason
from portlayer.storage import ContainerDisks
from tests.archive.support import entry, snapshot, tar, unpack
from tests.system.disks.lab import DISK_BYTES, OWNER, Lab, container_id, run, stream

pytestmark = pytest.mark.system

ONE, TWO = container_id(1), container_id(2)
IMAGE = tar(
    entry("bin", tarfile.DIRTYPE),
    (entry("bin/tool", mode=0o755, mtime=1000), b"tool"),
    (entry("etc/conf", mtime=1000), b"conf"),
    (entry("etc/keep", mtime=1000), b"keep"),
    entry("etc/link", tarfile.SYMTYPE, linkname="conf"),
    (entry("usr/lib/a/b/file", mtime=1000), b"deep"),
    entry("tmp", tarfile.DIRTYPE, mode=0o1777),
    entry("data", tarfile.SYMTYPE, linkname="/srv"),
)
OPTIONS = {"no_overwrite_dir_non_dir": False, "copy_uid_gid": False}


async def collect(chunks: object) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def made(lab: Lab, *containers: str) -> ContainerDisks:
    images = await lab.images()
    chain = await lab.put(images, IMAGE)
    disks = await lab.disks(images)
    for container in containers or (ONE,):
        await disks.create(container, layer=chain, disk_bytes=0)
    return disks


def fingerprint(disk: Path) -> tuple[int, int, bytes]:
    return disk.stat().st_mtime_ns, disk.stat().st_size, disk.read_bytes()


async def test_two_containers_share_one_chain_and_nothing_else(lab: Lab) -> None:
    disks = await made(lab, ONE, TWO)
    chains = [lab.chain(disks.path(container)) for container in (ONE, TWO)]
    assert chains[0][0] != chains[1][0]
    assert chains[0][1:] == chains[1][1:]
    assert len(chains[0]) == 3
    before = [path.read_bytes() for path in chains[0][1:]]
    async with disks.offline(ONE, writable=True) as root:
        await root.copy_in(b"/etc", stream(tar((entry("conf"), b"mine"))), **OPTIONS)
    async with disks.offline(TWO, writable=False) as root:
        assert (await root.stat(b"/etc/conf")).size == 4
        with tarfile.open(fileobj=io.BytesIO(await collect(root.copy_out(b"/etc/conf")))) as file:
            assert file.extractfile("conf").read() == b"conf"
    assert [path.read_bytes() for path in chains[0][1:]] == before
    with lab.mounted(disks.path(ONE)) as place:
        assert (place / "etc" / "conf").read_bytes() == b"mine"


async def test_disks_belong_to_the_hypervisors_user(lab: Lab) -> None:
    disks = await made(lab)
    status = disks.path(ONE).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, *OWNER)
    assert stat.S_IMODE(disks.path(ONE).parent.stat().st_mode) == 0o710
    code = f"import os; os.setgid({OWNER[1]}); os.setuid({OWNER[0]}); [open(p) for p in {[str(p) for p in lab.chain(disks.path(ONE))]}]"
    for parent in lab.root.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(0o755)
    subprocess.run(["python3", "-c", code], check=True)


async def test_an_empty_file_system(lab: Lab) -> None:
    images = await lab.images()
    disks = await lab.disks(images)
    await disks.create(ONE, layer="", disk_bytes=0)
    assert await disks.diff(ONE) == []
    async with disks.offline(ONE, writable=False) as root:
        with tarfile.open(fileobj=io.BytesIO(await collect(root.copy_out(b"/")))) as file:
            assert file.getnames() == [""]
    assert await disks.size(ONE) == (disks.path(ONE).stat().st_blocks * 512,) * 2


async def test_a_larger_disk_has_a_larger_file_system(lab: Lab) -> None:
    images = await lab.images()
    chain = await lab.put(images, IMAGE)
    disks = await lab.disks(images)
    await disks.create(ONE, layer=chain, disk_bytes=3 * DISK_BYTES)
    assert disks.path(ONE).stat().st_blocks * 512 < 20_000_000
    with lab.mounted(disks.path(ONE)) as place:
        space = os.statvfs(place)
        assert space.f_blocks * space.f_frsize > 2.9 * DISK_BYTES
        assert (place / "bin" / "tool").read_bytes() == b"tool"
    with pytest.raises(PortLayerError, match="smaller than its image's file system") as caught:
        await disks.create(TWO, layer=chain, disk_bytes=1 << 20)
    assert caught.value.reason == Reason.NOT_SUPPORTED
    assert not disks.path(TWO).parent.exists()


async def test_names(lab: Lab) -> None:
    disks = await made(lab)
    with pytest.raises(PortLayerError) as caught:
        await disks.create(ONE, layer="", disk_bytes=0)
    assert caught.value.reason == Reason.NAME_IN_USE
    with pytest.raises(PortLayerError) as caught:
        await disks.create(TWO, layer="sha256:" + "0" * 64, disk_bytes=0)
    assert caught.value.reason == Reason.NO_SUCH_LAYER
    for call in (disks.size(TWO), disks.diff(TWO), disks.size("../" + "a" * 61)):
        with pytest.raises(PortLayerError) as caught:
            await call
        assert caught.value.reason == Reason.NO_SUCH_CONTAINER
    await disks.remove(ONE)
    await disks.remove(ONE)
    assert not disks.path(ONE).parent.exists()


async def test_opening_sweeps_what_is_not_live(lab: Lab) -> None:
    disks = await made(lab, ONE, TWO)
    images = await lab.images()
    again = await lab.disks(images, live=[TWO])
    assert not disks.path(ONE).exists()
    assert (await again.size(TWO))[0] > 0


# -- copying


async def test_copy_in_and_out_as_docker_cp_does(lab: Lab, tmp_path: Path) -> None:
    disks = await made(lab)
    async with disks.offline(ONE, writable=True) as root:
        with pytest.raises(PortLayerError) as caught:
            await root.copy_in(b"/data", stream(tar()), **OPTIONS)
        assert caught.value.reason == Reason.NO_SUCH_PATH
        await root.copy_in(b"/", stream(tar(entry("srv", tarfile.DIRTYPE))), **OPTIONS)
        await root.copy_in(
            b"/data", stream(tar((entry("new/file", uid=7, gid=8), b"through /srv"))), **OPTIONS
        )
        found = await root.stat(b"/srv/new/file")
        assert (found.name, found.size, stat.S_ISREG(found.mode)) == (b"file", 12, True)
        link = await root.stat(b"/data")
        assert (stat.S_ISLNK(link.mode), link.link_target) == (True, b"/srv")
        data = await collect(root.copy_out(b"/data/new"))
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        assert [(member.name, member.uid) for member in file] == [("new", 0), ("new/file", 7)]
    with lab.mounted(disks.path(ONE)) as place:
        assert (place / "srv" / "new" / "file").read_bytes() == b"through /srv"


async def test_copy_in_says_what_is_wrong_and_goes_on(lab: Lab) -> None:
    disks = await made(lab)
    cases = [
        (b"/missing", tar(entry("x")), Reason.NO_SUCH_PATH),
        (b"/etc/conf", tar(entry("x")), Reason.IS_DIRECTORY_CONFLICT),
        (b"/", tar((entry("etc"), b"file over directory")), Reason.IS_DIRECTORY_CONFLICT),
        (b"/etc", tar(entry("conf", tarfile.DIRTYPE)), Reason.IS_DIRECTORY_CONFLICT),
        (b"/", tar(entry("../x")), Reason.BAD_LAYER),
        (b"/", b"no archive" * 1000, Reason.BAD_LAYER),
        (b"/", b"cut off", Reason.BAD_LAYER),
        (b"/", tar((entry("big"), bytes(4 << 20)))[: 3 << 20], Reason.BAD_LAYER),
        (b"/", tar(entry("../x")) + bytes(8 << 20), Reason.BAD_LAYER),
    ]
    async with disks.offline(ONE, writable=True) as root:
        for path, data, reason in cases:
            with pytest.raises(PortLayerError) as caught:
                await root.copy_in(path, stream(data), no_overwrite_dir_non_dir=True, copy_uid_gid=False)
            assert caught.value.reason == reason, (path, str(caught.value))
        await root.copy_in(b"/", stream(tar((entry("fine"), b"x"))), **OPTIONS)
        for call in (root.stat(b"/nope"), collect(root.copy_out(b"/nope"))):
            with pytest.raises(PortLayerError) as caught:
                await call
            assert caught.value.reason == Reason.NO_SUCH_PATH
        assert (await root.stat(b"/fine")).size == 1


@pytest.mark.parametrize(
    ("user", "flag", "expected"),
    [
        ("app", True, (1000, 1001)),
        ("app:staff", True, (1000, 50)),
        ("7", True, (7, 0)),
        ("7:8", True, (7, 8)),
        ("", True, (3, 4)),
        ("app", False, (3, 4)),
    ],
)
async def test_archive_mode_gives_files_to_the_containers_user(
    lab: Lab, user: str, flag: bool, expected: tuple[int, int]
) -> None:
    images = await lab.images()
    image = tar(
        (entry("usr/passwd"), b"root:x:0:0::/:\napp:x:1000:1001::/:/bin/sh\n"),
        entry("etc/passwd", tarfile.SYMTYPE, linkname="/usr/passwd"),
        (entry("etc/group"), b"staff:x:50:\n"),
    )
    disks = await lab.disks(images)
    await disks.create(ONE, layer=await lab.put(images, image), disk_bytes=0)
    async with disks.offline(ONE, writable=True) as root:
        await root.copy_in(
            b"/", stream(tar((entry("f", uid=3, gid=4), b"x"))),
            no_overwrite_dir_non_dir=False, copy_uid_gid=flag, user=user,
        )  # fmt: skip
    with lab.mounted(disks.path(ONE)) as place:
        status = (place / "f").stat()
        assert (status.st_uid, status.st_gid) == expected


@pytest.mark.parametrize("passwd", ["", "fifo", "link out"])
async def test_an_unknown_user_is_named(lab: Lab, passwd: str) -> None:
    images = await lab.images()
    entries = {
        "": [],
        "fifo": [entry("etc/passwd", tarfile.FIFOTYPE)],
        "link out": [entry("etc/passwd", tarfile.SYMTYPE, linkname="../../../../../../etc/passwd")],
    }
    disks = await lab.disks(images)
    await disks.create(ONE, layer=await lab.put(images, tar(*entries[passwd])), disk_bytes=0)
    async with disks.offline(ONE, writable=True) as root:
        with pytest.raises(
            PortLayerError, match=r"symbolic links|not a regular file|unable to find user daemon"
        ):
            await root.copy_in(
                b"/",
                stream(tar(entry("f"))),
                no_overwrite_dir_non_dir=False,
                copy_uid_gid=True,
                user="daemon",
            )


async def test_an_abandoned_copy_out_does_not_disturb_the_next_call(lab: Lab) -> None:
    disks = await made(lab)
    async with disks.offline(ONE, writable=True) as root:
        await root.copy_in(b"/", stream(tar((entry("big"), os.urandom(8 << 20)))), **OPTIONS)
        async with contextlib.aclosing(root.copy_out(b"/big")) as chunks:
            async for _ in chunks:
                break
        assert (await root.stat(b"/big")).size == 8 << 20


async def test_a_source_that_fails_does_not_disturb_the_next_call(lab: Lab) -> None:
    class SourceFailed(Exception):
        pass

    async def failing():
        yield tar((entry("half"), bytes(3 << 20)))[: 2 << 20]
        raise SourceFailed

    disks = await made(lab)
    async with disks.offline(ONE, writable=True) as root:
        with pytest.raises(SourceFailed):
            await root.copy_in(b"/", failing(), **OPTIONS)
        assert (await root.stat(b"/etc/conf")).size == 4


async def test_what_was_written_stays_when_the_body_fails(lab: Lab) -> None:
    disks = await made(lab)
    with pytest.raises(ZeroDivisionError):
        async with disks.offline(ONE, writable=True) as root:
            await root.copy_in(b"/", stream(tar((entry("kept"), b"x"))), **OPTIONS)
            raise ZeroDivisionError
    with lab.mounted(disks.path(ONE)) as place:
        assert (place / "kept").read_bytes() == b"x"


async def test_two_sessions_of_one_container_queue(lab: Lab) -> None:
    disks = await made(lab)
    order = []

    async def session(number: int) -> None:
        async with disks.offline(ONE, writable=True) as root:
            order.append(f"open {number}")
            await root.copy_in(b"/", stream(tar((entry(f"file{number}"), b"x"))), **OPTIONS)
            order.append(f"close {number}")

    await asyncio.gather(session(1), session(2), session(3))
    assert order == [f"{what} {number}" for number in (1, 2, 3) for what in ("open", "close")]
    with lab.mounted(disks.path(ONE)) as place:
        assert {path.name for path in place.glob("file*")} == {"file1", "file2", "file3"}


async def test_a_disk_that_a_vm_has_is_refused(lab: Lab) -> None:
    disks = await made(lab)
    holder = subprocess.Popen(
        ["qemu-io", "-f", "vmdk", disks.path(ONE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.stdin.write("read 0 512\n")
    holder.stdin.flush()
    holder.stdout.readline()
    try:
        with pytest.raises(PortLayerError) as caught:
            async with disks.offline(ONE, writable=True):
                pass
        assert caught.value.reason == Reason.ALREADY_RUNNING
    finally:
        holder.communicate("quit\n")


# -- volumes


async def test_volumes_are_shown_at_their_destinations(lab: Lab) -> None:
    disks = await made(lab, ONE, TWO)
    volumes = await lab.volumes()
    info = await volumes.create(
        name="vol",
        driver="",
        options={"capacity": "64m"},
        labels={},
        anonymous=False,
        metadata=b"",
        created_at=1,
    )
    # an absolute link of the image in the way, a missing place, and the same volume a second time, read-only
    mounts = [(info.path, "/data/inner", False), (info.path, "/tmp/ro", True)]
    async with disks.offline(ONE, volumes=[(info.path, "/mnt/v", False)], writable=True) as root:
        await root.copy_in(b"/mnt/v", stream(tar((entry("file"), b"in the volume"))), **OPTIONS)
        await root.copy_in(b"/mnt", stream(tar((entry("beside"), b"on the disk"))), **OPTIONS)
    before = [fingerprint(path) for path in (info.path, disks.path(TWO))]
    async with disks.offline(TWO, volumes=mounts, writable=False) as root:
        for path in (b"/srv/inner/file", b"/data/inner/file", b"/tmp/ro/file"):
            assert (await root.stat(path)).size == 13
        for path in (b"/srv/inner", b"/tmp/ro"):
            with pytest.raises(PortLayerError) as caught:
                await root.copy_in(path, stream(tar(entry("x"))), **OPTIONS)
            assert caught.value.reason == Reason.NOT_SUPPORTED
    assert [fingerprint(path) for path in (info.path, disks.path(TWO))] == before
    async with disks.offline(TWO, volumes=mounts, writable=True) as root:
        await root.copy_in(b"/data/inner", stream(tar((entry("two"), b"x"))), **OPTIONS)
        with pytest.raises(PortLayerError) as caught:
            await root.copy_in(b"/tmp/ro", stream(tar(entry("x"))), **OPTIONS)
        assert caught.value.reason == Reason.NOT_SUPPORTED
    with lab.mounted(info.path) as place:
        assert sorted(path.name for path in (place / "data").iterdir()) == ["file", "two"]
    with lab.mounted(disks.path(ONE)) as place:
        assert sorted(path.name for path in (place / "mnt").iterdir()) == ["beside", "v"]
        assert list((place / "mnt" / "v").iterdir()) == []


async def test_a_volume_whose_data_is_a_link_shows_nothing_of_the_host(lab: Lab) -> None:
    """The guest owns the disk: it may have put a link where our directory was."""
    disks = await made(lab)
    volumes = await lab.volumes()
    info = await volumes.create(
        name="vol",
        driver="",
        options={"capacity": "64m"},
        labels={},
        anonymous=False,
        metadata=b"",
        created_at=1,
    )
    raw, place = lab.path / "raw", lab.path / "place"
    run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", info.path, raw)
    place.mkdir()
    run("mount", "-o", "loop", raw, place)
    (place / "data").rmdir()
    (place / "data").symlink_to("/etc")
    run("umount", place)
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, info.path)
    with pytest.raises(PortLayerError):
        async with disks.offline(ONE, volumes=[(info.path, "/mnt", False)], writable=False) as root:
            await root.stat(b"/mnt/passwd")


# -- reading never writes


def crash(disk: Path, lab: Lab) -> None:
    """Leave the file system as a guest that lost its power would: mounted, with a journal to replay."""
    raw, place, cut = lab.path / "raw", lab.path / "place", lab.path / "cut"
    run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", disk, raw)
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop", raw, place)
    (place / "written").write_bytes(b"in the journal")
    run("sync", "-f", place)  # syncfs: committed to the journal, not checkpointed
    run("cp", "--sparse=always", raw, cut)
    run("umount", place)
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", cut, disk)
    assert "needs_recovery" in run("dumpe2fs", "-h", cut)


async def test_a_crashed_disk_is_read_with_its_journal_and_not_changed(lab: Lab) -> None:
    disks = await made(lab)
    crash(disks.path(ONE), lab)
    before = fingerprint(disks.path(ONE))
    async with disks.offline(ONE, writable=False) as root:
        assert (await root.stat(b"/written")).size == 14
    assert fingerprint(disks.path(ONE)) == before
    async with disks.offline(ONE, writable=True) as root:
        assert (await root.stat(b"/written")).size == 14
    assert fingerprint(disks.path(ONE)) != before
    with lab.mounted(disks.path(ONE)) as place:
        assert (place / "written").read_bytes() == b"in the journal"


@pytest.mark.parametrize("what", ["stat", "copy_out", "diff", "export"])
async def test_reading_never_changes_the_disk(lab: Lab, what: str) -> None:
    disks = await made(lab)
    async with disks.offline(ONE, writable=True) as root:
        await root.copy_in(b"/", stream(tar((entry("file"), b"x"))), **OPTIONS)
    before = fingerprint(disks.path(ONE))
    if what == "diff":
        await disks.diff(ONE)
    elif what == "export":
        await collect(disks.export_diff(ONE))
    else:
        async with disks.offline(ONE, writable=False) as root:
            await (root.stat(b"/file") if what == "stat" else collect(root.copy_out(b"/")))
    assert fingerprint(disks.path(ONE)) == before


# -- differences

CHANGES = tar(
    (entry("etc/conf", mtime=1000), b"CONF"),  # same size, same time: the content tells
    (entry("etc/keep", mtime=1000), b"keep"),  # written again, but the same
    (entry("etc/new"), b"new"),
    entry("etc/.wh.link"),
    entry("usr/lib/a/.wh.b"),
    (entry("added/sub/file"), b"x"),
    entry("bin", tarfile.DIRTYPE, mtime=1000),
    (entry("bin/tool", mode=0o700, mtime=1000), b"tool"),
    entry(".wh.data"),
    (entry("data/was a link"), b"x"),
)
EXPECTED = [
    (b"/added", "A"), (b"/added/sub", "A"), (b"/added/sub/file", "A"),
    (b"/bin", "C"), (b"/bin/tool", "C"),
    (b"/data", "C"), (b"/data/was a link", "A"),
    (b"/etc", "C"), (b"/etc/conf", "C"), (b"/etc/link", "D"), (b"/etc/new", "A"),
    (b"/usr", "C"), (b"/usr/lib", "C"), (b"/usr/lib/a", "C"), (b"/usr/lib/a/b", "D"),
]  # fmt: skip
LETTERS = {DiffEntry.MODIFIED: "C", DiffEntry.ADDED: "A", DiffEntry.DELETED: "D"}


async def changed(lab: Lab) -> ContainerDisks:
    """A container that did what CHANGES says (a guest would; here the layer unpacker does)."""
    disks = await made(lab)
    notes = {name: str(lab.root / name) for name in ("skeleton", "replaced")}
    async with disks.offline(ONE, writable=True) as root:
        await root._worker.upload("unpack_layer", stream(CHANGES), **notes)
    return disks


async def test_diff_is_what_docker_diff_shows(lab: Lab) -> None:
    disks = await changed(lab)
    assert [(path, LETTERS[kind]) for path, kind in await disks.diff(ONE)] == EXPECTED


async def test_diff_of_an_untouched_container_is_empty(lab: Lab) -> None:
    disks = await made(lab)
    assert await disks.diff(ONE) == []
    async with disks.offline(ONE, writable=True):
        pass
    assert await disks.diff(ONE) == []


async def test_a_diff_becomes_a_layer_with_the_same_content(lab: Lab, tmp_path: Path) -> None:
    disks = await changed(lab)
    images = await lab.images()
    (base,) = images.list()
    data = await collect(disks.export_diff(ONE))
    chain = await lab.put(images, data, base.chain_id)
    with lab.mounted(disks.path(ONE)) as place:
        expected = snapshot(place)
    with lab.mounted(images.get(chain).path) as place:
        found = snapshot(place)
    del expected[b"."], found[b"."]  # a layer says nothing of the root itself
    assert found == expected
    unpack(tmp_path, data)
    assert (tmp_path / "etc" / ".wh.link").exists()


async def test_size(lab: Lab) -> None:
    disks = await made(lab)
    own, total = await disks.size(ONE)
    assert own < 100_000
    assert total == own + sum(len(word) for word in ("tool", "conf", "keep", "deep"))
    async with disks.offline(ONE, writable=True) as root:
        await root.copy_in(b"/", stream(tar((entry("big"), os.urandom(5_000_000)))), **OPTIONS)
    assert 5_000_000 < (await disks.size(ONE))[0] < 8_000_000


async def test_a_full_host_is_said_so_and_the_disk_survives(lab: Lab) -> None:
    lab.small_disk("40m")
    disks = await made(lab)
    with pytest.raises(PortLayerError) as caught:
        async with disks.offline(ONE, writable=True) as root:
            await root.copy_in(b"/", stream(tar((entry("big"), os.urandom(60_000_000)))), **OPTIONS)
    assert caught.value.reason == Reason.NO_SPACE
    lab.assert_nothing_left()
    async with disks.offline(ONE, writable=False) as root:
        assert (await root.stat(b"/etc/conf")).size == 4
