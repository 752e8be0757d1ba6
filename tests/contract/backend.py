"""What the contract tests need from a back end beside its Hypervisor."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from portlayer.hypervisor.base import Disk, Hypervisor, Nic, VmInfo
from portlayer.hypervisor.qemu import QemuHypervisor
from tests.contract.guest import BootFiles
from tests.contract.namespace import private_network
from vch.config import Guest, VchConfig

__all__ = ["Backend", "QemuBackend"]


class Backend(Protocol):
    """One tenant's worth of host: hypervisors made by it share their state."""

    checkpoints: bool
    """Whether a running VM that writes to a disk can be saved, and go on from that."""

    def hypervisor(self) -> Hypervisor:
        """A new one, not yet open: what a restarted port layer would make."""

    def disk(self, name: str, *, mib: int = 8, read_only: bool = False) -> Disk: ...

    def nic(self, number: int) -> Nic:
        """A NIC on a segment where the host answers as :meth:`host_address`."""

    def host_address(self, number: int) -> str: ...

    def guest_address(self, number: int) -> str: ...

    def network(self) -> AbstractContextManager[None]:
        """A context in which NICs can be made."""

    def kill(self, info: VmInfo) -> None:
        """Make a running VM's hypervisor process vanish. Returns when it has."""

    def reap(self, info: VmInfo) -> None:
        """Take note of the death of a process that nobody watched."""

    def saved_memory(self, directory: Path) -> list[int]:
        """Sizes of the memory that the snapshots of the VM with this directory hold."""

    def remains(self) -> list[str]:
        """What is left on the host once all VMs are deleted; empty when all is well."""


class QemuBackend:
    checkpoints = True

    def __init__(self, directory: Path, files: BootFiles, profile: str) -> None:
        self.directory = directory
        if not (directory / "boot").exists():  # by which tests.contract.victim finds them
            (directory / "boot").symlink_to(files.kernel.parent)
        self.config = VchConfig(
            name=directory.name,
            id="c" * 32,
            root=directory / "root",
            run=directory / "run",
            guest=Guest(
                kernel=files.kernel, initrd=files.initrd, iso=files.iso, profile=profile, accel="tcg"
            ),
            qemu_user="nobody",
        )

    def hypervisor(self) -> QemuHypervisor:
        return QemuHypervisor(self.config)

    def disk(self, name: str, *, mib: int = 8, read_only: bool = False) -> Disk:
        path = self.directory / f"{name}.vmdk"
        if not path.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, f"{mib}M"], check=True)
            os.chown(path, 65534, 65534)
        return Disk(id=name, path=path, read_only=read_only)

    def nic(self, number: int) -> Nic:
        tap, bridge = f"mtcontract{number}", f"mrcontract{number}"
        for command in (
            f"link add {bridge} type bridge",
            f"addr add {self.host_address(number)}/24 dev {bridge}",
            f"link set {bridge} up",
            f"tuntap add dev {tap} mode tap",
            f"link set {tap} master {bridge} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        return Nic(id=tap, mac=f"02:00:5e:00:00:{number:02x}", network=bridge)

    def host_address(self, number: int) -> str:
        return f"10.99.{number}.1"

    def guest_address(self, number: int) -> str:
        return f"10.99.{number}.2"

    @contextmanager
    def network(self) -> Iterator[None]:
        with private_network():
            yield

    def kill(self, info: VmInfo) -> None:
        os.kill(info.pid, signal.SIGKILL)
        os.waitid(os.P_PID, info.pid, os.WEXITED | os.WNOWAIT)  # whoever watches it shall reap it

    def reap(self, info: VmInfo) -> None:
        os.waitpid(info.pid, 0)

    def saved_memory(self, directory: Path) -> list[int]:
        return [path.stat().st_size for path in directory.glob("snapshots/*/memory.state")]

    def remains(self) -> list[str]:
        found = [str(path) for path in (self.config.run / "vm").glob("*")]
        found += [str(path) for path in (self.config.root / "vms").glob("*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/mooring/{self.config.name}")]
        found += [f"process {pid}" for pid in self.processes()]
        return found

    def processes(self) -> list[int]:
        """Every QEMU that has a file of ours on its command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if os.fsencode(self.directory) in words and b"qemu-system" in words:
                found.append(int(process.parent.name))
        return found
