"""Order and choice of kernel modules."""

import lzma
from pathlib import Path

import pytest

from imagebuild import modules
from imagebuild.kernels import KernelError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "modules.dep").write_text(
        "kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz\nkernel/b.ko.xz: kernel/c.ko.xz\nkernel/c.ko.xz:\n"
    )
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return tmp_path


def test_a_module_comes_after_all_it_needs(tree: Path) -> None:
    names = [path.name for path in modules.module_order(tree, ["a"])]
    assert names == ["c.ko.xz", "b.ko.xz", "a.ko.xz"]


def test_a_module_is_listed_once(tree: Path) -> None:
    assert len(modules.module_order(tree, ["a", "b", "c", "a"])) == 3


def test_built_in_modules_need_no_file(tree: Path) -> None:
    assert modules.module_order(tree, ["ext4"]) == []


def test_a_boot_module_that_does_not_exist_is_an_error(tree: Path) -> None:
    with pytest.raises(KernelError, match="no module virtio_blk"):
        modules.module_order(tree, ["virtio_blk"])


def test_an_optional_module_that_does_not_exist_is_left_out(tree: Path) -> None:
    assert modules.module_order(tree, ["sctp"]) == []


def test_dashes_and_underscores_are_one(tree: Path) -> None:
    (tree / "modules.dep").write_text("kernel/x-y.ko:\n")
    assert modules.module_order(tree, ["x_y"]) == [Path("kernel/x-y.ko")]


def test_modules_are_stored_decompressed(tmp_path: Path) -> None:
    (tmp_path / "m.ko.xz").write_bytes(lzma.compress(b"\x7fELF"))
    assert modules.module_bytes(tmp_path / "m.ko.xz") == b"\x7fELF"
    (tmp_path / "m.ko").write_bytes(b"\x7fELF")
    assert modules.module_bytes(tmp_path / "m.ko") == b"\x7fELF"
