"""The VMDK writer, by the numbers of the format; a system test compares it with qemu-img byte by byte."""

import struct
from pathlib import Path

import pytest

from portlayer.offline import vmdk

GIB = 1 << 30


@pytest.mark.parametrize(
    ("capacity", "size", "second_directory", "first_grain"),
    [
        (100 << 20, 65536, 38, 128),
        (GIB, 196608, 150, 384),
        (3_000_000_000, 393216, 382, 768),
        (10 * GIB, 1376256, 1304, 2688),
    ],
)
def test_layout(tmp_path: Path, capacity: int, size: int, second_directory: int, first_grain: int) -> None:
    path = tmp_path / "disk.vmdk"
    vmdk.create(path, capacity=capacity)
    data = path.read_bytes()
    assert len(data) == size
    header = struct.unpack_from("<4sIIQQQQIQQQB4sH", data)
    assert header == (
        b"KDMV", 1, 3, -(-capacity // 512), 128, 1, 20, 512, 21, second_directory, first_grain, 0, b"\n \r\n", 0,
    )  # fmt: skip
    tables = -(-capacity // (64 << 10) // 512)
    for directory in (21, second_directory):
        entries = struct.unpack_from(f"<{tables}I", data, directory * 512)
        assert list(entries) == list(range(entries[0], entries[0] + 4 * tables, 4))
        assert not any(data[entries[0] * 512 : entries[-1] * 512 + 2048])
    assert path.stat().st_blocks * 512 < 64 << 10
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_child_names_its_parent_and_the_parents_id(tmp_path: Path) -> None:
    parent, child = tmp_path / "layers" / "one" / "disk.vmdk", tmp_path / "two" / "disk.vmdk"
    for path in (parent, child):
        path.parent.mkdir(parents=True)
    vmdk.create(parent, capacity=GIB)
    vmdk.create(child, parent=parent)
    above, below = vmdk.read_descriptor(child), vmdk.read_descriptor(parent)
    assert (above.parent_cid, above.capacity) == (below.cid, GIB)
    assert above.parent_hint == "../layers/one/disk.vmdk"
    assert Path(vmdk.parent_of(child)) == parent
    assert below.parent_cid == 0xFFFFFFFF
    with pytest.raises(vmdk.VmdkError, match="has no parent"):
        vmdk.parent_of(parent)


def test_a_child_may_be_larger_never_smaller(tmp_path: Path) -> None:
    vmdk.create(tmp_path / "parent", capacity=GIB)
    for name, wanted, size in (("larger", 2 * GIB, 2 * GIB), ("smaller", 1, GIB)):
        vmdk.create(tmp_path / name, parent=tmp_path / "parent", capacity=wanted)
        assert vmdk.read_descriptor(tmp_path / name).capacity == size


def test_ids_differ_and_never_mean_no_parent(tmp_path: Path) -> None:
    seen = set()
    for number in range(20):
        path = tmp_path / str(number)
        vmdk.create(path, capacity=1 << 20)
        seen.add(vmdk.read_descriptor(path).cid)
    assert len(seen) == 20
    assert max(seen) < 0x80000000


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        vmdk.create(tmp_path / "disk", capacity=GIB)
    assert (tmp_path / "disk").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"KDMV",
        b"x" * 20000,
        b"KDMV".ljust(20000, b"\0"),
        b"KDMV".ljust(512, b"\0") + b"CID=zz\nparentCID=1\n".ljust(20000, b"\0"),
    ],
)
def test_what_is_no_vmdk_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "disk").write_bytes(data)
    with pytest.raises(vmdk.VmdkError, match="disk"):
        vmdk.read_descriptor(tmp_path / "disk")


def test_a_path_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vmdk.create(tmp_path / "parent", capacity=GIB)
    monkeypatch.setattr("os.path.relpath", lambda *_: "d/" * 6000)
    with pytest.raises(vmdk.VmdkError, match="too long"):
        vmdk.create(tmp_path / "child", parent=tmp_path / "parent")
    assert not (tmp_path / "child").exists()
