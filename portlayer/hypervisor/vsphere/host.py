"""What every VM of the back end works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portlayer.hypervisor.base import VmEvent
from portlayer.hypervisor.vsphere.collector import Collector
from portlayer.hypervisor.vsphere.hardware import Layout
from portlayer.hypervisor.vsphere.inventory import Place
from portlayer.hypervisor.vsphere.keys import Seal
from portlayer.hypervisor.vsphere.networks import Networks
from portlayer.hypervisor.vsphere.places import DatastoreMap
from portlayer.hypervisor.vsphere.session import Session
from vch.config import VchConfig, Vsphere

__all__ = ["Host", "VmFiles"]


@dataclass(frozen=True)
class VmFiles:
    """The VM's own directory on the datastore, as this host sees it."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    def create(self) -> None:
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.touch()

    def touch(self) -> None:
        """A rotation that did not finish has moved the journal away."""
        for path in (self.journal, self.console):
            path.touch(mode=0o600)


@dataclass(frozen=True, kw_only=True)
class Host:
    config: VchConfig
    target: Vsphere
    session: Session
    collector: Collector
    place: Place
    places: DatastoreMap
    networks: Networks
    seal: Seal
    emit: Callable[[VmEvent], None]

    def files(self, vm: str) -> VmFiles:
        return VmFiles(self.config.paths.vms / vm)

    def layout(self, vm: str) -> Layout:
        assert self.config.guest.iso is not None, "checked when the back end is opened"
        return Layout(
            directory=self.places.remote(self.config.paths.vms / vm),
            iso=self.places.remote(self.config.guest.iso),
        )
