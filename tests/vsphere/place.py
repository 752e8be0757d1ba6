"""A VCH in the lab, of a test's own."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from portlayer.hypervisor.base import Disk
from tests.contract.vsphere import vsphere_target
from tests.lab.process import LabProcess
from vch.config import Guest, VchConfig

__all__ = ["Place", "vch_in"]


@dataclass(frozen=True)
class Place:
    config: VchConfig

    def disk(self, name: str, *, parent: Path | None = None) -> Disk:
        path = self.config.root / f"{name}.vmdk"
        backing = [] if parent is None else ["-F", "vmdk", "-b", str(parent)]
        size = ["8M"] if parent is None else []
        subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", *backing, path, *size], check=True)
        return Disk(id=name, path=path)


def vch_in(lab: LabProcess, directory: Path) -> Place:
    root = lab.datastore / directory.name
    root.mkdir()
    iso = root / "boot.iso"
    iso.touch()
    return Place(
        VchConfig(
            name=directory.name,
            id=secrets.token_hex(16),
            root=root,
            run=directory,
            guest=Guest(kernel=iso, initrd=iso, iso=iso, profile="vsphere"),
            hypervisor="vsphere",
            vsphere=vsphere_target(lab, directory),
        )
    )
