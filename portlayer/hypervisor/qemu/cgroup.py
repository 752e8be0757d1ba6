"""A control group per VM, where the host lets us make one.

Its point is the host's protection: a QEMU that a guest has taken over gets no
more memory and threads than a VM needs. Outside our own service's group, so that
stopping the service stops no VM. Version 2 and the old hierarchies both do; a
host where neither can be written runs VMs without, and says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CgroupTree"]

ROOT = Path("/sys/fs/cgroup")
OVERHEAD_MIB = 512  # QEMU itself, translated code, and room for the page cache of its disks
THREADS = 256  # virtual CPUs, and at most 64 workers for disk requests
CONTROLLERS = ("memory", "pids")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CgroupTree:
    """``parents``: one directory (version 2) or one per controller (version 1); they go with the last VM."""

    parents: Sequence[Path]
    controllers: Sequence[str]  # version 2: what to hand down; empty on version 1

    @classmethod
    def open(cls, vch: str, *, root: Path = ROOT) -> CgroupTree | None:
        """Decide once what this host offers; None when nothing."""
        unified = (root / "cgroup.controllers").exists()
        tree = cls._unified(root, vch) if unified else cls._legacy(root, vch)
        if tree is None:
            _log.warning("VMs run without control groups: %s offers neither memory nor pids", root)
            return None
        try:
            for parent in tree.parents:
                tree._make(parent)
        except OSError as error:
            _log.warning("VMs run without control groups: %s", error)
            return None
        _log.info("control groups of VMs are in %s", ", ".join(map(str, tree.parents)))
        return tree

    @classmethod
    def _unified(cls, root: Path, vch: str) -> CgroupTree | None:
        offered = (root / "cgroup.controllers").read_text().split()
        wanted = tuple(name for name in CONTROLLERS if name in offered)
        return cls((root / "mooring" / vch,), wanted) if wanted else None

    @classmethod
    def _legacy(cls, root: Path, vch: str) -> CgroupTree | None:
        parents = [root / name / "mooring" / vch for name in CONTROLLERS if (root / name / "tasks").exists()]
        return cls(tuple(parents), ()) if parents else None

    def add(self, vm: str, pid: int, *, memory_mib: int) -> None:
        """Put a process into its group. A refusal is logged: the VM runs all the same."""
        memory = str((memory_mib + OVERHEAD_MIB) << 20)
        for parent in self.parents:
            group = parent / vm[:16]
            limits = {
                "memory.max" if self.controllers else "memory.limit_in_bytes": memory,
                "pids.max": str(THREADS),
            }
            try:
                self._make(parent)
                group.mkdir(exist_ok=True)
                for name, value in limits.items():
                    if (group / name).exists():
                        (group / name).write_text(value)
                (group / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                _log.warning("VM %s: control group %s: %s", vm[:12], group, error)

    def remove(self, vm: str) -> None:
        for parent in self.parents:
            _remove(parent / vm[:16])
            _remove(parent)

    def sweep(self, live: Collection[str]) -> None:
        """Remove the groups of VMs that no longer run."""
        keep = {vm[:16] for vm in live}
        for parent in self.parents:
            for group in list(parent.iterdir()) if parent.exists() else ():
                if group.is_dir() and group.name not in keep:
                    _remove(group)
            _remove(parent)

    def _make(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        if self.controllers:
            for directory in (parent.parent.parent, parent.parent, parent):
                (directory / "cgroup.subtree_control").write_text(" ".join(f"+{n}" for n in self.controllers))


def _remove(group: Path) -> None:
    """Only an empty group goes: a process nobody has reaped yet keeps it until the next sweep."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        _log.debug("control group %s stays: %s", group, error)
