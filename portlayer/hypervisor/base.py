"""What the port layer asks of a hypervisor.

Two back ends implement :class:`Hypervisor` (``qemu`` and ``vsphere``) and pass
the same contract tests. The hypervisor is the truth: everything the port layer
must know about a container after a restart is in :attr:`VmConfig.extra`, kept
with the VM, and changed only by compare-and-set on its version.

Every coroutine raises :class:`HypervisorError` or a subclass; after any of them
the VM is in the state it had before the call unless the docstring says
otherwise.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = [
    "Capabilities",
    "ConcurrentAccess",
    "Disk",
    "Hypervisor",
    "HypervisorError",
    "InvalidState",
    "LaunchError",
    "Nic",
    "NoSuchVm",
    "NotSupported",
    "PowerState",
    "Share",
    "VmConfig",
    "VmEvent",
    "VmEventKind",
    "VmInfo",
]


class HypervisorError(Exception):
    """A hypervisor refused or failed; the message names the VM, the step and the cause."""


class NoSuchVm(HypervisorError):
    """No VM has this ID."""


class InvalidState(HypervisorError):
    """The power state does not allow the call; the message holds both states."""


class ConcurrentAccess(HypervisorError):
    """The VM's change version is not the one the caller saw."""


class LaunchError(HypervisorError):
    """The VM did not come up; the message ends with the hypervisor's own words."""


class NotSupported(HypervisorError):
    """This back end cannot do that with this VM; the message says why."""


class PowerState(enum.Enum):
    OFF = "off"
    ON = "on"
    SUSPENDED = "suspended"  # vCPUs stopped, memory kept (docker pause)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A virtual disk. ``id`` is also the serial number the guest sees (at most 20 characters)."""

    id: str
    path: Path
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A virtual NIC. ``id`` is the host interface (tap name on qemu, port key on vSphere)."""

    id: str
    mac: str
    network: str  # bridge name on qemu, port group on vSphere
    mtu: int = 1500


@dataclass(frozen=True, kw_only=True)
class Share:
    """A directory or file of the host that the guest mounts by ``tag`` (a file is the one called "file")."""

    tag: str
    path: Path  # free of links
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class VmConfig:
    """One VM's hardware and its persisted documents.

    ``boot_config`` is a serialized ``mooring.tether.v1.BootConfig``, shown to
    the guest at boot. ``extra`` holds the port layer's own documents; the
    guest cannot read them.
    """

    id: str
    name: str
    vcpus: int = 1
    memory_mib: int = 512
    disks: Sequence[Disk] = ()
    nics: Sequence[Nic] = ()
    shares: Sequence[Share] = ()
    boot_config: bytes = b""
    extra: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VmInfo:
    config: VmConfig
    version: int  # change version, grows with every configure()
    power: PowerState
    pid: int = 0  # hypervisor process, 0 when off or unknown
    plugged_nics: frozenset[str] | None = None
    """IDs of the NICs that the running VM really has; None: what the configuration says. They differ when
    we were killed between a hot-plug and the configuration that follows it."""


class VmEventKind(enum.Enum):
    POWERED_ON = "powered-on"
    POWERED_OFF = "powered-off"  # guest power-off, power_off() or the process is gone
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    REMOVED = "removed"


@dataclass(frozen=True, kw_only=True)
class VmEvent:
    id: str
    kind: VmEventKind
    detail: str = ""  # for POWERED_OFF: "guest-shutdown", "power-off", "crashed: …"


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    name: str  # "qemu", "vsphere"
    version: str
    accelerator: str  # "kvm", "tcg", "esxi"
    profile: str  # "fast", "vsphere"
    hot_add_nic: bool
    hot_add_disk: bool
    max_disks: int
    max_nics: int
    max_shares: int = 0  # 0: host paths cannot be shared


class Hypervisor(Protocol):
    """VM life cycle. Calls for one VM are serialised by the implementation; different VMs run in parallel."""

    async def open(self) -> None:
        """Find existing VMs, re-attach to running ones, sweep half-made ones. Call once."""

    async def close(self) -> None:
        """Let go of everything; VMs keep running."""

    async def capabilities(self) -> Capabilities: ...

    # -- life cycle
    async def create(self, config: VmConfig) -> VmInfo:
        """Make a powered-off VM. It exists completely or not at all. Disks stay the caller's."""

    async def configure(self, config: VmConfig, *, version: int) -> VmInfo:
        """Replace the configuration if ``version`` is current, durably.

        On a running VM hardware changes take effect at the next start, except
        through the hot-plug calls below.

        Raises:
            ConcurrentAccess: somebody else configured it; nothing changed.
        """

    async def start(self, vm: str, *, snapshot: str | None = None) -> VmInfo:
        """Power on. Returns when the hypervisor runs the VM, not when the guest is ready.

        With ``snapshot`` its disks become what they were then, and the VM goes on from its memory.

        Raises:
            LaunchError: the VM is off again; its disks may be the snapshot's already.
            NotSupported: its hardware is not the snapshot's; nothing changed.
        """

    async def power_off(self, vm: str) -> None:
        """Cut the power. Returns when the VM is off; no error when it already is."""

    async def suspend(self, vm: str) -> None: ...

    async def resume(self, vm: str) -> None: ...

    async def snapshot(self, vm: str, name: str, *, stop: bool = False) -> None:
        """Save memory, devices and disks of a running or powered-off VM under ``name``.

        With ``stop`` a running VM is powered off at that very moment.
        """

    async def snapshots(self, vm: str) -> Sequence[str]:
        """The names, sorted."""

    async def delete_snapshot(self, vm: str, name: str) -> None: ...

    async def clone(self, vm: str, config: VmConfig) -> VmInfo:
        """Make ``config`` a VM that shares the disks and, when running, the memory of ``vm``."""

    async def delete(self, vm: str) -> None:
        """Remove a powered-off VM with its own files (journal, sockets), never its disks. Idempotent."""

    # -- what is there
    async def list(self) -> list[VmInfo]: ...

    async def get(self, vm: str) -> VmInfo: ...

    def watch(self) -> AsyncIterator[VmEvent]:
        """Power events of all VMs from now on, whoever caused them. Never polled by the caller."""

    # -- hot plug (running VMs). The configuration follows, so the change version grows.
    # Repeating a call that got no answer is safe.
    async def add_nic(self, vm: str, nic: Nic) -> None: ...

    async def remove_nic(self, vm: str, nic_id: str) -> None: ...

    async def add_disk(self, vm: str, disk: Disk) -> None: ...

    async def remove_disk(self, vm: str, disk_id: str) -> None: ...

    # -- the guest's streams
    async def open_channel(self, vm: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A fresh connection to the tether. One at a time: a new one replaces the old."""

    def journal(self, vm: str) -> Path:
        """The file the guest's journal port is appended to; readable while the VM runs and after."""

    async def rotate_journal(self, vm: str, *, keep: int) -> None:
        """Move the journal to ``<journal>.1`` without losing bytes.

        Older files move up by one; at most ``keep`` stay.
        """

    async def console(self, vm: str, *, limit: int = 65536) -> bytes:
        """The last bytes the guest's kernel wrote to its console: for error messages."""
