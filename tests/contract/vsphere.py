"""The vSphere back end in the lab: one lab for all tests, one VCH for each."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from portlayer.hypervisor.base import Disk, Nic, VmInfo
from portlayer.hypervisor.vsphere import VsphereHypervisor
from portlayer.hypervisor.vsphere.hardware import instance_uuid
from tests.contract.guest import BootFiles
from tests.contract.namespace import private_network
from tests.lab.process import LabProcess
from vch.config import Guest, VchConfig, Vsphere

__all__ = ["VsphereBackend", "lab_in_a_network_of_its_own", "vsphere_target"]

DATASTORE = "LocalDS_0"
DEATH_TIMEOUT = 10.0


@contextmanager
def lab_in_a_network_of_its_own(directory: Path, *options: str) -> Iterator[LabProcess]:
    """The rest of the thread's life until the end of this is in that network, too: or nobody reached the lab."""
    with private_network():
        lab = LabProcess(directory, *options)
        try:
            yield lab
        finally:
            lab.close()


def vsphere_target(lab: LabProcess, secret: Path) -> Vsphere:
    """Where the lab is; the password and the key are written below ``secret``."""
    credentials, key = secret / "credentials.json", secret / "vch.key"
    for path, data in (
        (credentials, json.dumps({"user": lab.ready["user"], "password": lab.ready["password"]}).encode()),
        (key, secrets.token_bytes(32)),
    ):
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(data)
    certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", lab.port)))
    return Vsphere(
        host="127.0.0.1",
        port=lab.port,
        thumbprint=hashlib.sha256(certificate).hexdigest(),
        credentials=credentials,
        key=key,
        datastore=DATASTORE,
        mount=lab.datastore,
        channel_host="127.0.0.1",
        pool="DC0_C0/Resources",
    )


class VsphereBackend:
    checkpoints = False

    def __init__(self, directory: Path, files: BootFiles, lab: LabProcess) -> None:
        self.directory = directory
        self.lab = lab
        self.root = lab.datastore / directory.name
        iso = lab.datastore / "contract.iso"
        if not iso.exists():
            shutil.copyfile(files.iso, iso)
        self.config = VchConfig(
            name=directory.name,
            id=secrets.token_hex(16),
            root=self.root / "root",
            run=directory / "run",
            guest=Guest(kernel=files.kernel, initrd=files.initrd, iso=iso, profile="vsphere"),
            hypervisor="vsphere",
            vsphere=vsphere_target(lab, directory),
        )
        self.root.mkdir()

    def hypervisor(self) -> VsphereHypervisor:
        return VsphereHypervisor(self.config)

    def disk(self, name: str, *, mib: int = 8, read_only: bool = False) -> Disk:
        path = self.root / f"{name}.vmdk"
        if not path.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", path, f"{mib}M"], check=True)
        return Disk(id=name, path=path, read_only=read_only)

    def nic(self, number: int) -> Nic:
        network = f"DC0_DVPG{number}"
        bridge = self.lab.ready["networks"][network]
        if subprocess.run(["ip", "link", "show", bridge], capture_output=True, check=False).returncode != 0:
            subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
        address = f"{self.host_address(number)}/24"
        subprocess.run(["ip", "addr", "replace", address, "dev", bridge], check=True)
        subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
        return Nic(id=f"port{number}", mac=f"02:00:5e:00:00:{number:02x}", network=network)

    def host_address(self, number: int) -> str:
        return f"10.99.{number}.1"

    def guest_address(self, number: int) -> str:
        return f"10.99.{number}.2"

    def network(self) -> AbstractContextManager[None]:
        return nullcontext()  # the lab's own

    def kill(self, info: VmInfo) -> None:
        """vSphere names no process: it is the one with the VM's UUID."""
        (pid,) = self.processes(f"-uuid {instance_uuid(info.config.id)}")
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + DEATH_TIMEOUT
        while self._power(info) != "poweredOff":  # which its host tells a moment later
            assert time.monotonic() < deadline, f"process {pid} does not die"
            time.sleep(0.01)

    def _power(self, info: VmInfo) -> str:
        vms = self.lab.state()["vms"]
        return next(str(vm["power"]) for vm in vms if vm["name"].endswith(info.config.id[:12]))

    def reap(self, info: VmInfo) -> None:
        """The lab has."""

    def saved_memory(self, directory: Path) -> list[int]:
        return [path.stat().st_size for path in directory.glob("*.vmem")]

    def remains(self) -> list[str]:
        found = [str(path) for path in (self.config.root / "vms").glob("*")]
        found += [vm["name"] for vm in self.lab.state()["vms"]]
        return found + [f"process {pid}" for pid in self.processes(str(self.lab.directory))]

    def processes(self, words: str) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line.startswith("qemu-system") and words in line:
                found.append(int(process.parent.name))
        return found
