"""What all VMs of one VCH share: who they run as, what they boot from, where they live."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
import shutil
from dataclasses import dataclass

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.qemu.accelerator import Accelerator
from portlayer.hypervisor.qemu.cgroup import CgroupTree
from portlayer.hypervisor.qemu.commandline import Boot
from portlayer.hypervisor.qemu.devices import Profile
from portlayer.hypervisor.qemu.process import Credentials
from portlayer.hypervisor.qemu.runtime import RunDirectory
from portlayer.hypervisor.qemu.store import VmStore
from portlayer.hypervisor.qemu.tsc import measure_khz
from vch.config import VchConfig

__all__ = ["Host"]

BINARY = "qemu-system-x86_64"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Host:
    config: VchConfig
    profile: Profile
    binary: str
    version: str
    credentials: Credentials
    accelerator: Accelerator
    cgroups: CgroupTree | None
    store: VmStore
    tsc_khz: int

    @classmethod
    async def survey(cls, config: VchConfig) -> Host:
        """Look at the machine once.

        Raises:
            HypervisorError: something a VM needs is missing; the message says what.
        """
        try:
            profile = Profile(config.guest.profile)
        except ValueError as error:
            raise HypervisorError(
                f"guest.profile is {config.guest.profile!r}: expected fast or vsphere"
            ) from error
        binary = shutil.which(BINARY)
        if binary is None:
            raise HypervisorError(f"{BINARY} is not installed (Debian: apt install qemu-system-x86)")
        needed = [config.guest.kernel, config.guest.initrd]
        if profile is Profile.VSPHERE:
            if config.guest.iso is None:
                raise HypervisorError("guest.profile vsphere needs guest.iso, the bootstrap.iso")
            needed.append(config.guest.iso)
        for path in needed:
            if not path.is_file():
                raise HypervisorError(f"{path} is missing: build the guest first")
        credentials = _credentials(config.qemu_user)
        version = await _version(binary)
        return cls(
            config=config,
            profile=profile,
            binary=binary,
            version=version,
            credentials=credentials,
            accelerator=Accelerator(
                config.guest.accel,
                binary=binary,
                version=version,
                kernel=config.guest.kernel,
                credentials=credentials,
                verdict=config.paths.accelerator,
            ),
            cgroups=await asyncio.to_thread(CgroupTree.open, config.name) if os.geteuid() == 0 else None,
            store=VmStore(config.paths.vms, owner=(credentials.uid, credentials.gid)),
            tsc_khz=await asyncio.to_thread(measure_khz),
        )

    def run_directory(self, vm: str) -> RunDirectory:
        return RunDirectory(self.config.paths.vm_run(vm), vm)

    def boot(self, accelerator: str) -> Boot:
        guest = self.config.guest
        return Boot(
            binary=self.binary,
            profile=self.profile,
            accelerator=accelerator,
            kernel=guest.kernel,
            initrd=guest.initrd,
            iso=guest.iso,
            cmdline=guest.cmdline,
            tsc_khz=self.tsc_khz,
        )


def _credentials(user: str) -> Credentials:
    if os.geteuid() != 0:
        return Credentials(uid=os.geteuid(), gid=os.getegid())
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise HypervisorError(
            f"user {user!r} (qemu_user) does not exist; `vic-machine create` makes it"
        ) from error
    if entry.pw_uid == 0:
        raise HypervisorError("qemu_user is root: VMs must not run as root")
    try:
        groups: tuple[int, ...] = (grp.getgrnam("kvm").gr_gid,)
    except KeyError:
        groups = ()
    return Credentials(uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


async def _version(binary: str) -> str:
    """ "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)" """
    process = await asyncio.create_subprocess_exec(
        binary,
        "--version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    first = output.decode(errors="replace").partition("\n")[0]
    if process.returncode != 0 or "version " not in first:
        raise HypervisorError(f"{binary} --version: {first or f'exit status {process.returncode}'}")
    return first.partition("version ")[2]
