"""Finding disks in a sysfs made of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tether import disks
from tether.disks import DiskError, find_disk
from tether.tether_pb2 import DiskAddress

T = TypeVar("T")


class Announcements:
    """As `Uevents`, with changes to make between two looks."""

    def __init__(self, *changes: Callable[[], object]) -> None:
        self._changes = list(changes)

    def wait_for(self, look: Callable[[], T | None], *, seconds: float) -> T | None:
        while True:
            found = look()
            if found is not None or not self._changes:
                return found
            self._changes.pop(0)()


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "block"
    directory.mkdir()
    monkeypatch.setattr(disks, "_SYS_BLOCK", str(directory))
    return directory


def add(block: Path, name: str, *, serial: str = "", page: bytes = b"", size: str = "8") -> Path:
    disk = block / name
    disk.mkdir()
    (disk / "size").write_text(f"{size}\n")
    if serial:
        (disk / "serial").write_text(serial)
    if page:
        (disk / "device").mkdir()
        (disk / "device/vpd_pg80").write_bytes(page)
    return disk


def find(address: DiskAddress, *changes: Callable[[], object]) -> str:
    return find_disk(address, Announcements(*changes))  # type: ignore[arg-type]


def test_a_virtio_disk_is_found_by_its_serial(block: Path) -> None:
    add(block, "vda", serial="other")
    add(block, "vdb", serial="root-123")
    assert find(DiskAddress(serial="root-123")) == "/dev/vdb"


def test_a_scsi_disk_is_found_by_its_unit_serial_page(block: Path) -> None:
    add(block, "sda", page=b"\0\x80\0\x04abcd")
    add(block, "sdb", page=b"\0\x80\0\x08root\0   ")
    assert find(DiskAddress(serial="root")) == "/dev/sdb"


def test_a_disk_counts_once_its_size_is_known(block: Path) -> None:
    disk = add(block, "vda", serial="root", size="0")
    assert find(DiskAddress(serial="root"), lambda: (disk / "size").write_text("8")) == "/dev/vda"


def test_a_disk_that_comes_late_is_waited_for(block: Path) -> None:
    assert find(DiskAddress(serial="late"), lambda: add(block, "vdc", serial="late")) == "/dev/vdc"


def test_a_missing_disk_is_named_beside_what_is_there(block: Path) -> None:
    add(block, "vda", serial="x")
    add(block, "loop0")
    with pytest.raises(DiskError, match=r"no disk with serial root within 10 s \(present: vda\)"):
        find(DiskAddress(serial="root"))
    with pytest.raises(DiskError, match="no address"):
        find(DiskAddress())


def test_a_scsi_address_counts_disk_controllers_only(
    block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    for name, driver in (("host0", "ata_piix"), ("host2", "vmw_pvscsi"), ("host10", "vmw_pvscsi")):
        (hosts / name).mkdir(parents=True)
        (hosts / name / "proc_name").write_text(driver)
    monkeypatch.setattr(disks, "_SCSI_HOSTS", str(hosts))
    for name, place in (("sda", "2:0:0:0"), ("sdb", "2:0:1:0"), ("sdc", "10:0:0:0")):
        add(block, name)
        (block / name / "device").symlink_to(f"../../devices/{place}")
    assert find(DiskAddress(scsi="0:0:1:0")) == "/dev/sdb"
    assert find(DiskAddress(scsi="1:0:0:0")) == "/dev/sdc"
    with pytest.raises(DiskError, match="SCSI address 2:0:0:0"):
        find(DiskAddress(scsi="2:0:0:0"))
