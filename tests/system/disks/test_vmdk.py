"""Our VMDK writer against qemu-img: the same bytes but for the content ID, which is random."""

import re
from pathlib import Path

import pytest

from portlayer.offline import vmdk
from tests.system.disks.lab import run

pytestmark = pytest.mark.system


def without_id(path: Path) -> bytes:
    return re.sub(rb"\nCID=[0-9a-f]+\n", b"\nCID=\n", path.read_bytes(), count=1).replace(b"\0", b"")


@pytest.mark.parametrize("capacity", [1 << 20, 100 << 20, 1 << 30, 3_000_000_000, 10 << 30, 1 << 40])
def test_same_bytes_as_qemu_img(tmp_path: Path, capacity: int) -> None:
    for kind in ("ours", "theirs"):
        (tmp_path / kind).mkdir()
    vmdk.create(tmp_path / "ours" / "disk", capacity=capacity)
    run("qemu-img", "create", "-q", "-f", "vmdk", tmp_path / "theirs" / "disk", capacity)
    assert without_id(tmp_path / "ours" / "disk") == without_id(tmp_path / "theirs" / "disk")
    assert (tmp_path / "ours" / "disk").stat().st_size == (tmp_path / "theirs" / "disk").stat().st_size
    vmdk.create(tmp_path / "ours" / "child", parent=tmp_path / "theirs" / "disk")
    child = tmp_path / "theirs" / "child"
    run("qemu-img", "create", "-q", "-f", "vmdk", "-b", tmp_path / "theirs" / "disk", "-F", "vmdk", child)
    ours, theirs = without_id(tmp_path / "ours" / "child"), without_id(child)
    assert ours.replace(b"../theirs/disk", bytes(tmp_path / "theirs" / "disk")) == theirs
    run("qemu-img", "check", tmp_path / "ours" / "child")


def test_qemu_reads_through_and_refuses_a_parent_that_changed(tmp_path: Path) -> None:
    vmdk.create(tmp_path / "parent", capacity=1 << 30)
    run("qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 64k", tmp_path / "parent")
    vmdk.create(tmp_path / "child", parent=tmp_path / "parent", capacity=2 << 30)
    run(
        "qemu-io",
        "-f",
        "vmdk",
        "-c",
        "write -P 9 1088k 64k",
        "-c",
        "write -P 5 1536M 64k",
        tmp_path / "child",
    )
    run(
        "qemu-io", "-r", "-f", "vmdk", "-c", "read -P 7 1M 64k", "-c", "read -P 9 1088k 64k",
        "-c", "read -P 5 1536M 64k", "-c", "read -P 0 1100M 64k", tmp_path / "child",
    )  # fmt: skip
    run("qemu-io", "-f", "vmdk", "-c", "write -P 1 0 64k", tmp_path / "parent")
    with pytest.raises(AssertionError):
        run("qemu-io", "-r", "-f", "vmdk", "-c", "read 0 64k", tmp_path / "child")
