"""The initramfs of a container VM: the frozen tether as /init, and the few programs it starts.

Everything is listed here; nothing comes in by accident. Uncompressed by
default: inflating costs more time under emulation than the bytes save.
"""

from __future__ import annotations

import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagebuild.cpio import CpioWriter, Node
from imagebuild.elf import shared_libraries
from imagebuild.kernels import Kernel, KernelError
from imagebuild.modules import BOOT, ON_DEMAND, may_be_stripped, module_bytes, module_order

__all__ = ["PROGRAMS", "Initramfs", "write_initramfs"]

# path in the initramfs -> program of the builder's machine (Debian package)
PROGRAMS = {
    "usr/bin/tini": Path("/usr/bin/tini-static"),  # tini: docker run --init
}
# Only for modular kernels: the kernel calls it when a workload needs a module.
MODPROBE = Path("/usr/bin/kmod")  # kmod

# Python reads /dev/urandom before the tether can mount devtmpfs; without the
# node it dies and the kernel panics.
_DEVICES = {
    "dev/console": (0o600, 5, 1),
    "dev/null": (0o666, 1, 3),
    "dev/urandom": (0o666, 1, 9),
    "dev/kmsg": (0o644, 1, 11),
}
_DIRECTORIES = ["dev", "etc/mooring", "proc", "run", "sys", "tmp", "var", "usr/bin", "usr/lib", "usr/sbin"]
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@dataclass(frozen=True, kw_only=True)
class Initramfs:
    """What went in: for the SBOM and the summary."""

    size: int
    programs: tuple[Path, ...]
    libraries: tuple[Path, ...]
    modules: tuple[str, ...]


def write_initramfs(target: Path, *, kernel: Kernel, frozen: Path) -> Initramfs:
    """Write the archive to ``target``; the same inputs give the same bytes.

    Args:
        frozen: the directory made by :func:`imagebuild.freeze.freeze_tether`.

    Raises:
        FileNotFoundError: a program of :data:`PROGRAMS` is not installed.
    """
    programs = dict(PROGRAMS)
    if kernel.modules is not None:
        programs["usr/bin/kmod"] = MODPROBE
    frozen_files = sorted(path for path in frozen.rglob("*") if path.is_file())
    binaries = [path for path in frozen_files if path.stat().st_mode & stat.S_IXUSR]
    libraries = [
        path for path in shared_libraries([*programs.values(), *binaries]) if not path.is_relative_to(frozen)
    ]
    tree: dict[str, Node] = {}

    def put(node: Node) -> None:
        for parent in reversed(Path(node.name).parents[:-1]):
            name = str(parent)
            tree.setdefault(name, Node(name=name, mode=stat.S_IFDIR | 0o755))
        tree[node.name] = node

    for name in _DIRECTORIES:
        put(Node(name=name, mode=stat.S_IFDIR | 0o755))
    put(Node(name="usr/lib64", mode=stat.S_IFDIR | 0o755))
    for name, destination in _LINKS.items():
        put(Node(name=name, mode=stat.S_IFLNK | 0o777, data=destination.encode()))
    for name, (mode, major, minor) in _DEVICES.items():
        put(Node(name=name, mode=stat.S_IFCHR | mode, rdev=(major, minor)))
    for path in frozen_files:
        mode = 0o755 if path in binaries else 0o644
        put(Node(name=str(path.relative_to(frozen)), mode=stat.S_IFREG | mode, data=path.read_bytes()))
    for name, path in programs.items():
        put(Node(name=name, mode=stat.S_IFREG | 0o755, data=path.read_bytes()))
    for path in libraries:
        put(Node(name=_library_place(path), mode=stat.S_IFREG | 0o755, data=path.read_bytes()))
    modules: list[str] = []
    if kernel.modules is not None:
        put(Node(name="usr/sbin/modprobe", mode=stat.S_IFLNK | 0o777, data=b"../bin/kmod"))
        for node in _module_nodes(kernel.modules, kernel.release):
            put(node)
            modules.append(Path(node.name).name)
    with target.open("wb") as output:
        writer = CpioWriter(output)
        for name in sorted(tree):
            writer.add(tree[name])
        writer.close()
    return Initramfs(
        size=target.stat().st_size,
        programs=tuple(programs.values()),
        libraries=tuple(libraries),
        modules=tuple(modules),
    )


def _library_place(path: Path) -> str:
    # /lib and /lib64 are links to below /usr on merged-usr systems: keep one spelling.
    name = str(path).lstrip("/")
    return name if name.startswith("usr/") else f"usr/{name}"


def _module_nodes(directory: Path, release: str) -> Iterator[Node]:
    """The module files, the indexes modprobe reads, and the tether's own boot list.

    A line of ``etc/mooring/modules`` is a path and the PCI IDs ("vendor" or
    "vendor:device") of which one must be present; none means always.
    """
    base = f"usr/lib/modules/{release}"
    boot: dict[str, tuple[str, ...]] = {}
    for name, pci in BOOT.items():
        for path in module_order(directory, [name]):
            place = f"{base}/{path.with_name(path.name.split('.ko')[0] + '.ko')}"
            if place not in boot or not pci:
                boot[place] = pci
            elif boot[place]:
                boot[place] = tuple(dict.fromkeys(boot[place] + pci))
    lines = [" ".join((f"/{place}", *pci)) for place, pci in boot.items()]
    yield Node(name="etc/mooring/modules", mode=stat.S_IFREG | 0o644, data="\n".join([*lines, ""]).encode())
    strip = may_be_stripped(directory)
    with tempfile.TemporaryDirectory(prefix="mooring-modules-") as stage:
        for path in module_order(directory, [*BOOT, *ON_DEMAND]):
            place = f"{base}/{path.with_name(path.name.split('.ko')[0] + '.ko')}"
            node = Node(
                name=place, mode=stat.S_IFREG | 0o644, data=module_bytes(directory / path, strip=strip)
            )
            yield node
            staged = Path(stage) / place
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(node.data)
        for index in _indexes(Path(stage) / base, directory):
            data = (Path(stage) / base / index).read_bytes()
            yield Node(name=f"{base}/{index}", mode=stat.S_IFREG | 0o644, data=data)


def _indexes(staged: Path, directory: Path) -> list[str]:
    """Have depmod index the modules that go in: modprobe reads binary indexes and nothing else."""
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (directory / name).exists():
            (staged / name).write_bytes((directory / name).read_bytes())
    root = staged.parents[3]  # of usr/lib/modules/RELEASE
    (root / "lib").symlink_to("usr/lib")
    result = subprocess.run(
        ["/usr/sbin/depmod", "-b", str(root), staged.name], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise KernelError(f"depmod: {result.stderr.strip()[-1000:]}")
    names = ("modules.dep.bin", "modules.alias.bin", "modules.softdep", "modules.builtin.bin")
    return [name for name in (*names, "modules.builtin.alias.bin") if (staged / name).exists()]
