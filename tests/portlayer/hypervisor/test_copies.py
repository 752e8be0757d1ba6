"""What can be copied, and what is refused with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, NotSupported, VmConfig
from portlayer.hypervisor.copies import Draft, Running, check_clone, copy_disks

RO = Disk(id="ro", path=Path("/d/ro.raw"), read_only=True)
RW = Disk(id="rw", path=Path("/d/rw.vmdk"))
NIC = Nic(id="mt1", mac="02:00:00:00:00:01", network="mr1")
SOURCE = VmConfig(id="ab" * 32, name="s", disks=(RO,), nics=(NIC,))
CLONE = dataclasses.replace(SOURCE, id="cd" * 32, nics=(dataclasses.replace(NIC, id="mt2"),))
RUNNING = Running(disks=("ro",), nics=1, plugged=False)


def test_a_running_clone_has_its_sources_slots() -> None:
    check_clone(SOURCE, CLONE, RUNNING)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"memory_mib": 1}, "memory"),
        ({"vcpus": 9}, "virtual CPUs"),
        ({"disks": ()}, "disks"),
        ({"nics": ()}, "NICs"),
    ],
)
def test_other_hardware_cannot_go_on_with_its_memory(change: dict[str, Any], word: str) -> None:
    with pytest.raises(HypervisorError, match=word):
        check_clone(SOURCE, dataclasses.replace(CLONE, **change), RUNNING)
    check_clone(SOURCE, dataclasses.replace(CLONE, **change), None)


def test_changed_hardware_cannot_be_told() -> None:
    with pytest.raises(NotSupported, match="hardware was changed"):
        check_clone(SOURCE, CLONE, dataclasses.replace(RUNNING, plugged=True))


def test_a_disk_has_one_writer() -> None:
    source = dataclasses.replace(SOURCE, disks=(RW,))
    clone = dataclasses.replace(CLONE, disks=(RW,))
    with pytest.raises(HypervisorError, match="written by the source"):
        check_clone(source, clone, None)
    own = dataclasses.replace(RW, path=Path("/d/own.vmdk"))
    check_clone(source, dataclasses.replace(clone, disks=(own,)), None)
    with pytest.raises(NotSupported, match="writes to a disk"):
        check_clone(source, dataclasses.replace(clone, disks=(own,)), RUNNING)


def test_a_snapshot_appears_when_it_is_complete(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "snapshots", "first")
    draft.begin()
    assert not draft.final.exists()
    draft.finish(b"{}")
    assert (draft.final / "config.json").read_bytes() == b"{}"
    with pytest.raises(HypervisorError, match="exists"):
        Draft(tmp_path / "snapshots", "first")


@pytest.mark.parametrize("name", ["", ".new-x", "a/b", "..", "x" * 65, "a b"])
def test_a_name_is_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="snapshot name"):
        Draft(tmp_path, name)


async def test_only_what_is_written_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"content")
    target = tmp_path / "copies"
    target.mkdir()
    await copy_disks([RO, Disk(id="d", path=path)], target)
    assert {entry.name: entry.read_bytes() for entry in target.iterdir()} == {"d.raw": b"content"}


async def test_a_disk_in_several_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flat.vmdk"
    path.write_bytes(b'# Disk DescriptorFile\nRW 100 FLAT "flat-flat.vmdk" 0\n')
    with pytest.raises(NotSupported, match="other files"):
        await copy_disks([Disk(id="d", path=path)], tmp_path)
