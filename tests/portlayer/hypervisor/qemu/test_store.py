"""A VM exists exactly when its directory has its name."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portlayer.hypervisor.base import Disk, HypervisorError, Nic, NoSuchVm, VmConfig
from portlayer.hypervisor.qemu import store as module
from portlayer.hypervisor.qemu.reserve import SIZE
from portlayer.hypervisor.qemu.store import Record, VmStore, decode, encode

VM = "ab" * 32
CONFIG = VmConfig(
    id=VM,
    name="web",
    vcpus=3,
    memory_mib=300,
    disks=(Disk(id="root", path=Path("/d/a,b.vmdk")), Disk(id="v", path=Path("/d/v.vmdk"), read_only=True)),
    nics=(Nic(id="mt1", mac="02:00:00:00:00:01", network="mr1", mtu=9000),),
    boot_config=bytes(range(256)),
    extra={"container": b"\xff\x00", "intent": b""},
)


@pytest.fixture
def store(tmp_path: Path) -> VmStore:
    made = VmStore(tmp_path / "vms", owner=(os.getuid(), os.getgid()))
    made.open()
    return made


@given(
    boot=st.binary(max_size=200),
    extra=st.dictionaries(st.text(max_size=20), st.binary(max_size=50), max_size=5),
    name=st.text(max_size=30),
    version=st.integers(min_value=1, max_value=1 << 60),
)
def test_everything_comes_back(boot: bytes, extra: dict[str, bytes], name: str, version: int) -> None:
    config = dataclasses.replace(CONFIG, boot_config=boot, extra=extra, name=name)
    record = Record(config=config, version=version)
    assert decode(encode(record)) == record


@given(st.binary(max_size=300))
def test_noise_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(HypervisorError):
        decode(data)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 2}, "format"),
        ({"disks": [{"id": "a"}]}, "path"),
        ({"extra": {"a": "not base64!"}}, "base64|Invalid|padding"),
        ({"extra": []}, "items"),
        ({"version": "x"}, "literal"),
    ],
)
def test_damage_is_named(change: dict[str, Any], word: str) -> None:
    document = json.loads(encode(Record(config=CONFIG, version=1)))
    with pytest.raises(HypervisorError, match=word):
        decode(json.dumps({**document, **change}).encode())


def test_create_save_and_reopen(store: VmStore, tmp_path: Path) -> None:
    record = store.create(CONFIG)
    assert record == Record(config=CONFIG, version=1)
    changed = Record(config=dataclasses.replace(CONFIG, name="db"), version=2)
    store.save(changed)
    assert VmStore(tmp_path / "vms", owner=(0, 0)).open() == {VM: changed}
    store.delete(VM)
    store.delete(VM)
    assert store.open() == {}
    with pytest.raises(NoSuchVm):
        store.save(changed)


def test_only_root_reads_the_documents_and_qemu_its_own(store: VmStore) -> None:
    store.create(CONFIG)
    directory = store.prepare_start(CONFIG)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.path.iterdir()}
    assert modes == {"config.json": 0o600, "boot.bin": 0o640, "journal": 0o600, "console.log": 0o600}
    assert directory.path.stat().st_mode & 0o777 == 0o711
    assert directory.boot.read_bytes() == CONFIG.boot_config


def test_creating_what_exists_changes_nothing(store: VmStore) -> None:
    store.create(CONFIG)
    with pytest.raises(HypervisorError):
        store.create(dataclasses.replace(CONFIG, name="other"))
    assert store.open()[VM].config.name == "web"


def test_a_failed_attempt_does_not_prevent_the_next(store: VmStore, tmp_path: Path) -> None:
    (tmp_path / "vms" / f".new-{VM}" / "rest").mkdir(parents=True)
    store.create(CONFIG)
    assert not (store.directory(VM).path / "rest").exists()


def test_saved_memory_is_linked_in_with_the_vm(store: VmStore, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"memory")
    store.create(CONFIG, memory=state)
    state.unlink()
    assert store.directory(VM).memory.read_bytes() == b"memory"


def test_damaged_and_foreign_directories_are_left_alone(
    store: VmStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vms = tmp_path / "vms"
    store.create(CONFIG)
    (vms / "lost+found").mkdir()
    (vms / ("cd" * 32)).mkdir()
    (vms / ("cd" * 32) / "config.json").write_bytes(encode(Record(config=CONFIG, version=1)))
    (vms / "a file").write_bytes(b"")
    with caplog.at_level(logging.ERROR):
        assert list(store.open()) == [VM]
    assert len(caplog.records) == 3
    assert (vms / "lost+found").exists()


def test_streams_keep_what_is_in_them(store: VmStore) -> None:
    store.create(CONFIG)
    directory = store.directory(VM)
    directory.journal.write_bytes(b"record")
    directory.console.unlink()
    store.ensure_streams(VM)
    assert directory.journal.read_bytes() == b"record"
    assert directory.console.read_bytes() == b""


def test_half_made_files_of_a_vm_are_swept(store: VmStore) -> None:
    store.create(CONFIG)
    directory = store.directory(VM)
    (directory.path / ".new-clone-x").write_bytes(b"memory")
    (directory.snapshots / ".new-a").mkdir(parents=True)
    (directory.snapshots / "b").mkdir()
    store.open()
    assert not (directory.path / ".new-clone-x").exists()
    assert [entry.name for entry in directory.snapshots.iterdir()] == ["b"]


def test_a_full_disk_takes_a_change_of_what_is_there(
    store: VmStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, write = tmp_path / "reserve", module.write_file

    def full(path: Path, data: bytes) -> None:
        if reserve.stat().st_blocks:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    store.open()
    assert reserve.stat().st_blocks * 512 >= SIZE
    record = store.create(CONFIG)
    monkeypatch.setattr(module, "write_file", full)
    store.save(dataclasses.replace(record, version=2))
    assert store.open()[CONFIG.id].version == 2
    assert reserve.stat().st_blocks * 512 >= SIZE
