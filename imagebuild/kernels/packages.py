"""Kernels out of binary packages: Debian's ``.deb`` and Photon's ``.rpm``.

Both hold ``boot/vmlinuz-RELEASE`` and ``lib/modules/RELEASE`` (RPM distributions
sometimes below ``usr/lib/modules``, with the image beside the modules).
Packages are unpacked, never installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from imagebuild.kernels import Kernel, KernelError
from imagebuild.kernels.bzimage import unpack_bzimage

__all__ = ["debian_cloud_kernel", "kernel_from_file"]

META_PACKAGE = "linux-image-cloud-amd64"


def debian_cloud_kernel(cache: Path) -> Kernel:
    """Download (once) and unpack the package that Debian's cloud kernel currently is."""
    depends = _run(["apt-cache", "depends", META_PACKAGE])
    match = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    if match is None:
        raise KernelError(f"apt knows no {META_PACKAGE}; run `apt-get update` first")
    package = match[1]
    directory = cache / package
    packages = sorted(directory.glob("*.deb"))
    if not packages:
        directory.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "-qq", "download", package], cwd=directory)
        packages = sorted(directory.glob("*.deb"))
    if not packages:
        raise KernelError(f"apt-get download {package} left no file in {directory}")
    return kernel_from_file(packages[-1], directory)


def kernel_from_file(path: Path, work: Path) -> Kernel:
    """A kernel from a ``.deb``, an ``.rpm``, or a bare image without modules.

    Raises:
        KernelError: the file is missing, cannot be unpacked or holds no kernel.
    """
    if not path.is_file():
        raise KernelError(f"no kernel at {path}")
    if path.suffix not in (".deb", ".rpm"):
        release = _image_release(path)
        work.mkdir(parents=True, exist_ok=True)
        direct = unpack_bzimage(path, work / "vmlinux")
        return Kernel(release=release, image=path, modules=None, origin=f"file {path.name}", direct=direct)
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    if path.suffix == ".deb":
        _run(["dpkg-deb", "-x", str(path), str(tree)])
    else:
        _unpack_rpm(path, tree)
    return _kernel_in(tree, direct=work / "vmlinux", origin=f"package {path.stem}")


def _kernel_in(tree: Path, *, direct: Path, origin: str) -> Kernel:
    images = sorted([*tree.glob("boot/vmlinuz-*"), *tree.glob("**/lib/modules/*/vmlinuz")])
    if not images:
        raise KernelError(f"{origin}: neither boot/vmlinuz-* nor lib/modules/*/vmlinuz inside")
    image = images[-1]
    release = image.parent.name if image.name == "vmlinuz" else image.name.removeprefix("vmlinuz-")
    modules = next((d for d in tree.glob(f"**/lib/modules/{release}") if d.is_dir()), None)
    if modules is not None:
        base = next(parent for parent in modules.parents if parent.name == "lib").parent
        _run(["depmod", "-b", str(base), release])
    return Kernel(
        release=release,
        image=image,
        modules=modules,
        origin=origin,
        direct=unpack_bzimage(image, direct),
    )


def _unpack_rpm(path: Path, tree: Path) -> None:
    with subprocess.Popen(["rpm2cpio", str(path)], stdout=subprocess.PIPE) as reader:
        writer = subprocess.run(
            ["cpio", "--extract", "--make-directories", "--quiet", "--no-absolute-filenames"],
            stdin=reader.stdout,
            cwd=tree,
            check=False,
        )
    if reader.returncode or writer.returncode:
        raise KernelError(f"{path} is not an RPM that rpm2cpio and cpio can unpack")


def _image_release(path: Path) -> str:
    """The release a bzImage declares (Documentation/arch/x86/boot.rst, field kernel_version)."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head[0x202:0x206] != b"HdrS" and head[0x1FE:0x200] != b"\x55\xaa":
        if head[:4] == b"\x7fELF":
            return path.name
        raise KernelError(f"{path} is neither a bzImage nor an ELF kernel")
    offset = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    return head[offset : head.index(b"\0", offset)].decode("ascii", "replace").split(" ")[0]


def _run(command: list[str], *, cwd: Path | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise KernelError(f"{' '.join(command)} failed: {result.stderr.strip()[-1000:]}")
    return result.stdout
