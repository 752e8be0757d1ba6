"""Control groups, on directory trees that look like the kernel's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from portlayer.hypervisor.qemu.cgroup import CgroupTree

VM = "ab" * 32


def controller(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "tasks").touch()


def test_version_2_hands_the_controllers_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    tree = CgroupTree.open("vch", root=tmp_path)
    assert tree is not None
    assert list(tree.parents) == [tmp_path / "mooring/vch"]
    for directory in (tmp_path, tmp_path / "mooring", tmp_path / "mooring/vch"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory +pids"
    group = tmp_path / "mooring/vch" / VM[:16]
    group.mkdir()
    for name in ("memory.max", "pids.max"):
        (group / name).touch()
    tree.add(VM, 4711, memory_mib=100)
    assert (group / "memory.max").read_text() == str(612 << 20)
    assert (group / "pids.max").read_text() == "256"
    assert (group / "cgroup.procs").read_text() == "4711"


def test_version_1_uses_each_controllers_hierarchy(tmp_path: Path) -> None:
    for name in ("memory", "pids", "cpu"):
        controller(tmp_path / name)
    tree = CgroupTree.open("vch", root=tmp_path)
    assert tree is not None
    memory, pids = tmp_path / "memory/mooring/vch", tmp_path / "pids/mooring/vch"
    assert list(tree.parents) == [memory, pids]
    (memory / VM[:16]).mkdir()
    (memory / VM[:16] / "memory.limit_in_bytes").touch()
    tree.add(VM, 4711, memory_mib=100)
    assert (memory / VM[:16] / "memory.limit_in_bytes").read_text() == str(612 << 20)
    assert [(parent / VM[:16] / "cgroup.procs").read_text() for parent in (memory, pids)] == ["4711", "4711"]


def test_groups_go_with_their_vm_and_the_last_takes_the_parent(tmp_path: Path) -> None:
    controller(tmp_path / "memory")
    tree = CgroupTree.open("vch", root=tmp_path)
    assert tree is not None
    parent = tmp_path / "memory/mooring/vch"
    for vm in ("a" * 64, "b" * 64, "c" * 64):
        (parent / vm[:16]).mkdir()
    tree.remove("a" * 64)
    tree.sweep(["b" * 64])
    assert [group.name for group in parent.iterdir()] == ["b" * 16]
    tree.remove("b" * 64)
    tree.remove("b" * 64)
    assert not parent.exists()
    tree.sweep([])
    tree.add(VM, 1, memory_mib=1)
    assert (parent / VM[:16]).is_dir()


def test_a_host_without_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert CgroupTree.open("vch", root=tmp_path) is None
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    with caplog.at_level(logging.WARNING):
        assert CgroupTree.open("vch", root=tmp_path) is None
    assert len(caplog.records) == 2


def test_a_refusal_never_fails_a_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = CgroupTree((tmp_path / "file/below",), ())
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        tree.add(VM, 1, memory_mib=1)
    assert "control group" in caplog.text
