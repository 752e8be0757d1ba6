"""Kernels from files: images, Debian packages and Photon's RPM layout."""

import shutil
import subprocess
from pathlib import Path

import pytest

from imagebuild.kernels import KernelError
from imagebuild.kernels.packages import kernel_from_file
from imagebuild.kernels.source import FRAGMENT, built_kernel


def bzimage(release: str) -> bytes:
    """The parts of a bzImage that name it (Documentation/arch/x86/boot.rst)."""
    data = bytearray(0x1000)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = (0x400).to_bytes(2, "little")
    text = f"{release} (builder@host) #1\0".encode()
    data[0x600 : 0x600 + len(text)] = text
    return bytes(data)


def package_tree(root: Path, release: str, *, usr: bool) -> None:
    modules = root / ("usr/lib/modules" if usr else "lib/modules") / release
    modules.mkdir(parents=True)
    (modules / "modules.order").write_text("")
    (modules / "modules.builtin").write_text("")
    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{release}").write_bytes(bzimage(release))


def test_a_bare_image_says_its_release(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage("6.6.6-test"))
    kernel = kernel_from_file(path, tmp_path / "work")
    assert (kernel.release, kernel.modules) == ("6.6.6-test", None)


def test_a_debian_package_gives_image_and_modules(tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    package_tree(root, "6.1.0-9-cloud", usr=False)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: linux-image-test\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "-b", root, tmp_path / "k.deb"], check=True, capture_output=True)
    kernel = kernel_from_file(tmp_path / "k.deb", tmp_path / "work")
    assert kernel.release == "6.1.0-9-cloud"
    assert kernel.modules is not None
    assert (kernel.modules / "modules.dep").exists()


@pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpmbuild (Debian package rpm) makes the RPM")
def test_a_photon_rpm_gives_image_and_modules(tmp_path: Path) -> None:
    release = "6.1.10-4.ph5-esx"
    root = tmp_path / "root"
    package_tree(root, release, usr=True)
    spec = tmp_path / "linux-esx.spec"
    spec.write_text(
        "Name: linux-esx\nVersion: 6.1.10\nRelease: 4.ph5\nSummary: x\nLicense: GPLv2\nBuildArch: x86_64\n"
        "%description\nx\n%install\ncp -a "
        f"{root}/. %{{buildroot}}/\n%files\n/boot\n/usr/lib/modules\n"
    )
    subprocess.run(
        ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/rpm", "--define", "_build_id_links none", spec],
        check=True,
        capture_output=True,
    )
    rpm = next((tmp_path / "rpm/RPMS").rglob("*.rpm"))
    kernel = kernel_from_file(rpm, tmp_path / "work")
    assert kernel.release == release
    assert kernel.modules is not None
    assert kernel.modules.name == release


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="no kernel at"):
        kernel_from_file(tmp_path / "absent.rpm", tmp_path)


def test_a_file_that_is_no_kernel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(KernelError, match="neither a bzImage nor an ELF kernel"):
        kernel_from_file(path, tmp_path)


def test_a_broken_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.deb"
    path.write_bytes(b"not a package")
    with pytest.raises(KernelError, match="dpkg-deb"):
        kernel_from_file(path, tmp_path / "work")


def test_a_built_kernel_counts_only_while_its_fragment_is_the_present_one(tmp_path: Path) -> None:
    assert built_kernel(tmp_path) is None
    (tmp_path / "release").write_text("6.1.1\n")
    (tmp_path / "mooring.config").write_text("something else")
    assert built_kernel(tmp_path) is None
    (tmp_path / "mooring.config").write_bytes(FRAGMENT.read_bytes())
    kernel = built_kernel(tmp_path)
    assert kernel is not None
    assert kernel.release == "6.1.1"
