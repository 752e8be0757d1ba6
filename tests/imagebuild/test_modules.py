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
    assert modules.module_bytes(tmp_path / "m.ko.xz", strip=False) == b"\x7fELF"
    (tmp_path / "m.ko").write_bytes(b"\x7fELF")
    assert modules.module_bytes(tmp_path / "m.ko", strip=False) == b"\x7fELF"


def test_a_stripped_module_has_lost_its_signature(tmp_path: Path) -> None:
    image = Path("/bin/true").read_bytes()
    (tmp_path / "m.ko").write_bytes(image + b"signature~Module signature appended~\n")
    stripped = modules.module_bytes(tmp_path / "m.ko", strip=True)
    assert stripped.startswith(b"\x7fELF")
    assert b"Module signature appended" not in stripped


def test_what_is_no_module_cannot_be_stripped(tmp_path: Path) -> None:
    (tmp_path / "m.ko").write_bytes(b"text")
    with pytest.raises(KernelError, match=r"m\.ko"):
        modules.module_bytes(tmp_path / "m.ko", strip=True)


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [("# CONFIG_MODULE_SIG_FORCE is not set\n", True), ("CONFIG_MODULE_SIG_FORCE=y\n", False), (None, False)],
)
def test_modules_are_stripped_where_the_kernel_takes_them_so(
    tmp_path: Path, configuration: str | None, expected: bool
) -> None:
    directory = tmp_path / "usr/lib/modules/6.1.0"
    directory.mkdir(parents=True)
    if configuration is not None:
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/config-6.1.0").write_text(configuration)
    assert modules.may_be_stripped(directory) is expected
