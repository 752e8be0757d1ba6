"""Our own small kernel, from Debian's kernel source package.

Everything is built in (no modules to load at boot), so it is the fastest to
start. ``mooring.config`` is a fragment over ``allnoconfig`` and says why each
group is there.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from imagebuild.kernels import Kernel, KernelError

__all__ = ["FRAGMENT", "build_kernel", "built_kernel"]

FRAGMENT = Path(__file__).with_name("mooring.config")
SOURCE = Path("/usr/src/linux-source-6.1.tar.xz")  # Debian package linux-source-6.1


def built_kernel(directory: Path) -> Kernel | None:
    """The kernel a former :func:`build_kernel` left in ``directory``, if the fragment is the same."""
    stamp = directory / "mooring.config"
    if not stamp.exists() or stamp.read_bytes() != FRAGMENT.read_bytes():
        return None
    return Kernel(
        release=(directory / "release").read_text().strip(),
        image=directory / "bzImage",
        direct=directory / "vmlinux",
        modules=None,
        origin=f"built from {SOURCE.name} with mooring.config",
    )


def build_kernel(directory: Path, *, jobs: int) -> Kernel:
    """Compile (about 15 CPU minutes) into ``directory``; the stamp is written last."""
    existing = built_kernel(directory)
    if existing is not None:
        return existing
    if not SOURCE.exists():
        raise KernelError(f"{SOURCE} is missing: apt-get install linux-source-6.1")
    work = directory / "build"
    shutil.rmtree(directory, ignore_errors=True)
    work.mkdir(parents=True)
    _run(["tar", "-xf", str(SOURCE), "-C", str(work), "--strip-components=1"], work)
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
        "KBUILD_BUILD_USER": "mooring",
        "KBUILD_BUILD_HOST": "mooring",
        "KCONFIG_ALLCONFIG": str(FRAGMENT),
    }
    _run(["make", "ARCH=x86_64", "allnoconfig"], work, environment)
    _run(["make", "ARCH=x86_64", f"-j{jobs}", "bzImage"], work, environment)
    release = _run(["make", "-s", "ARCH=x86_64", "kernelrelease"], work, environment).strip()
    shutil.copy(work / "arch/x86/boot/bzImage", directory / "bzImage")
    _run(["objcopy", "--strip-debug", "vmlinux", str(directory / "vmlinux")], work)
    shutil.copy(work / ".config", directory / "config")
    (directory / "release").write_text(release + "\n")
    shutil.rmtree(work)
    shutil.copy(FRAGMENT, directory / "mooring.config")
    return Kernel(
        release=release,
        image=directory / "bzImage",
        direct=directory / "vmlinux",
        modules=None,
        origin=f"built from {SOURCE.name} with mooring.config",
    )


def _run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise KernelError(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return result.stdout
