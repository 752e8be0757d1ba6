"""Volumes as real disks."""

import asyncio
import os
import stat

import pytest

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage import VolumeInfo, VolumeStores
from tests.system.disks.lab import OWNER, Lab, cancel_after, run

pytestmark = pytest.mark.system


async def create(volumes: VolumeStores, name: str = "vol", **fields: object) -> VolumeInfo:
    arguments = {
        "driver": "", "options": {}, "labels": {}, "anonymous": False, "metadata": b"\0\xff", "created_at": 123,
    }  # fmt: skip
    return await volumes.create(name=name, **(arguments | fields))


async def test_a_volume_is_an_empty_directory_on_a_disk_of_its_own(lab: Lab) -> None:
    volumes = await lab.volumes()
    info = await create(volumes, options={"capacity": "1.5GB"})
    with lab.mounted(info.path) as place:
        assert [path.name for path in place.iterdir()] == ["data"]
        status = (place / "data").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
        space = os.statvfs(place)
        assert 0.9 < space.f_blocks * space.f_frsize / (1.5 * (1 << 30)) <= 1
    status = info.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, *OWNER)
    assert await volumes.used_bytes("vol") == status.st_blocks * 512 < 2_000_000
    assert lab.chain(info.path) == [info.path]


async def test_the_file_system_has_a_label_and_a_journal_that_fits(lab: Lab) -> None:
    volumes = await lab.volumes()
    seen = {}
    for name, size in (("small", "16m"), ("a-name-of-more-than-sixteen", "10GB")):
        info = await create(volumes, name, options={"Capacity": size})
        raw = lab.path / "raw"
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", info.path, raw)
        text = run("dumpe2fs", "-h", raw)
        seen[name] = {
            line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines() if ":" in line
        }
    assert seen["small"]["Filesystem volume name"] == "small"
    assert len(seen["a-name-of-more-than-sixteen"]["Filesystem volume name"]) == 16
    assert seen["small"]["Total journal size"] == "4096k"
    assert seen["a-name-of-more-than-sixteen"]["Total journal size"] == "32M"
    assert all("has_journal" in one["Filesystem features"] for one in seen.values())


async def test_a_call_that_is_cancelled_too_late_has_happened(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that hangs up just after the rename: disk and memory agree."""
    volumes = await lab.volumes()
    for step, call in (
        ("publish", lambda: create(volumes)),
        ("remove", lambda: volumes.remove("vol")),
    ):
        with monkeypatch.context() as patch:
            await cancel_after(patch, step, call())
        on_disk = [path.name for path in (lab.root / "volumes").iterdir() if not path.name.startswith(".")]
        assert on_disk == [info.name for info in volumes.list()] == (["vol"] if step == "publish" else [])
    await create(volumes)


async def test_a_volume_that_is_just_being_made_can_be_removed(lab: Lab) -> None:
    volumes = await lab.volumes()
    making = asyncio.create_task(create(volumes))
    await asyncio.sleep(0)
    assert (await volumes.remove("vol")) == await making
    assert volumes.list() == []


async def test_a_restart_finds_the_same_volumes(lab: Lab) -> None:
    volumes = await lab.volumes()
    await create(volumes, "one", labels={"a": "b"}, options={"VolumeStore": "other", "CAPACITY": "20m"})
    await create(volumes, "two", anonymous=True)
    again = await lab.volumes()
    assert sorted(again.list(), key=lambda info: info.name) == sorted(
        volumes.list(), key=lambda info: info.name
    )
    info = again.get("one")
    assert (info.store, info.capacity, info.metadata, info.driver) == ("other", 20 << 20, b"\0\xff", "local")
    assert info.path.is_relative_to(lab.root / "more")


async def test_the_same_name_is_the_same_volume_also_at_once(lab: Lab) -> None:
    volumes = await lab.volumes()
    infos = await asyncio.gather(*(create(volumes, options={"capacity": "16m"}) for _ in range(6)))
    assert all(info == infos[0] for info in infos)
    assert len(volumes.list()) == 1


async def test_many_at_once(lab: Lab) -> None:
    volumes = await lab.volumes()
    await asyncio.gather(
        *(create(volumes, f"vol{number}", options={"capacity": "16m"}) for number in range(12))
    )
    assert len((await lab.volumes()).list()) == 12


async def test_removal(lab: Lab) -> None:
    volumes = await lab.volumes()
    info = await create(volumes)
    await volumes.remove("vol")
    assert not info.path.parent.exists()
    for call in (volumes.remove("vol"), volumes.used_bytes("vol")):
        with pytest.raises(PortLayerError) as caught:
            await call
        assert caught.value.reason == Reason.NO_SUCH_VOLUME
    assert await create(volumes) == info


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"driver": "nfs"}, "driver 'nfs'"),
        ({"options": {"type": "nfs"}}, "option type=nfs"),
        ({"options": {"capacity": "lots"}}, "'lots' is not a size"),
        ({"options": {"capacity": "1m"}}, "not between"),
        ({"options": {"capacity": "3TB"}}, "not between"),
        ({"options": {"volumestore": "gold"}}, "no volume store 'gold'; there are: default, other"),
        ({"name": "a"}, "too short"),
        ({"name": "../x"}, "invalid characters"),
        ({"name": ".hidden"}, "invalid characters"),
        ({"name": "n" * 256}, "invalid characters"),
        ({"name": ""}, "invalid characters"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(lab: Lab, fields: dict, words: str) -> None:
    volumes = await lab.volumes()
    with pytest.raises(PortLayerError, match=words) as caught:
        await create(volumes, **({"name": "vol"} | fields))
    assert caught.value.reason == Reason.NOT_SUPPORTED
    assert volumes.list() == []


async def test_a_full_disk(lab: Lab) -> None:
    lab.small_disk("1m")
    with pytest.raises(PortLayerError) as caught:
        volumes = await lab.volumes()
        for number in range(5):
            await create(volumes, f"vol{number}")
    assert caught.value.reason == Reason.NO_SPACE
    lab.assert_nothing_left()


@pytest.mark.parametrize("victim", ["volume.json", "disk.vmdk"])
async def test_a_damaged_volume_harms_no_other_and_keeps_its_data(
    lab: Lab, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    volumes = await lab.volumes()
    info = await create(volumes)
    await create(volumes, "fine")
    info.path.with_name(victim).unlink()
    again = await lab.volumes()
    assert [found.name for found in again.list()] == ["fine"]
    assert "is damaged and left out" in caplog.text
    for call in (create(again), again.used_bytes("vol")):
        with pytest.raises(PortLayerError, match="volume vol is damaged"):
            await call
    assert info.path.parent.exists()
    await again.remove("vol")
    assert await create(again) == info
