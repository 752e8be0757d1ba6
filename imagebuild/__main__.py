"""Build the guest: kernel, initramfs with the frozen tether, bootstrap.iso and SBOM.

    python -m imagebuild OUTPUT [--kernel debian|built|PATH] [--no-iso]
    python -m imagebuild OUTPUT --compile-kernel

OUTPUT gets ``kernel``, ``initrd``, ``bootstrap.iso``, ``sbom.spdx.json`` and
``kernel-release``. Each file appears under its name only when it is whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from imagebuild.freeze import freeze_tether
from imagebuild.initramfs import write_initramfs
from imagebuild.iso import write_iso
from imagebuild.kernels import Kernel, KernelError
from imagebuild.kernels.packages import debian_cloud_kernel, kernel_from_file
from imagebuild.kernels.source import build_kernel, built_kernel
from imagebuild.sbom import Component, debian_components, python_components, spdx_document

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="imagebuild", description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--kernel",
        default="auto",
        help="auto (built when there is one, else debian), debian, built, or a .deb, .rpm or bzImage by path",
    )
    parser.add_argument("--compile-kernel", action="store_true", help="compile our own small kernel first")
    parser.add_argument("--no-iso", action="store_true", help="leave bootstrap.iso out")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", help="downloads and kernel builds")
    options = parser.parse_args()
    try:
        if options.compile_kernel:
            _say("compiling the kernel (about 15 CPU minutes, once)")
            build_kernel(options.cache / "kernel", jobs=os.cpu_count() or 1)
        build(options.output, _kernel(options.kernel, options.cache), iso=not options.no_iso)
    except (KernelError, RuntimeError, FileNotFoundError) as error:
        print(f"imagebuild: {error}", file=sys.stderr)
        return 1
    return 0


def build(output: Path, kernel: Kernel, *, iso: bool) -> None:
    """Make all files of the guest in ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    _say(f"kernel {kernel.release} ({kernel.origin})")
    with tempfile.TemporaryDirectory(dir=output, prefix=".new-") as directory:
        work = Path(directory)
        _say("freezing the tether")
        started = time.monotonic()
        frozen = freeze_tether(ROOT, work / "freeze")
        _say(f"tether frozen in {time.monotonic() - started:.1f} s")
        made = [work / "kernel", work / "initrd"]
        shutil.copyfile(kernel.direct or kernel.image, work / "kernel")
        initramfs = write_initramfs(work / "initrd", kernel=kernel, frozen=frozen)
        _say(f"initrd {initramfs.size / 1e6:.1f} MB, {len(initramfs.modules)} kernel modules")
        if iso:
            write_iso(work / "bootstrap.iso", kernel=kernel.image, initrd=work / "initrd")
            made.append(work / "bootstrap.iso")
            _say(f"bootstrap.iso {made[-1].stat().st_size / 1e6:.1f} MB")
        components = [Component(name="linux", version=kernel.release, license="GPL-2.0-only")]
        components += debian_components([*initramfs.programs, *initramfs.libraries])
        components += python_components(["protobuf", "pyinstaller"])
        components.append(Component(name="python", version=sys.version.split()[0], license="PSF-2.0"))
        (work / "sbom.spdx.json").write_text(spdx_document(components, made))
        (work / "kernel-release").write_text(f"{kernel.release}\n")
        for path in [*made, work / "sbom.spdx.json", work / "kernel-release"]:
            path.rename(output / path.name)


def _kernel(choice: str, cache: Path) -> Kernel:
    if choice in ("auto", "built"):
        kernel = built_kernel(cache / "kernel")
        if kernel is not None:
            return kernel
        if choice == "built":
            raise KernelError("no kernel was built from the present mooring.config: run `make kernel`")
    if choice in ("auto", "debian"):
        return debian_cloud_kernel(cache)
    return kernel_from_file(Path(choice), cache / "kernel-package")


def _say(text: str) -> None:
    print(f"imagebuild: {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
