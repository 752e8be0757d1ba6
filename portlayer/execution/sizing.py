"""From what a container asks for to the size of its VM.

A memory limit is the workload's; the guest's kernel and tether need room
beside it. Memory that a guest never touches costs the host nothing, so there is
a floor that every guest boots with, whatever its limit. Both depend on the
initramfs, which stays in the guest's memory: a modular kernel's is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Resources
from vch.config import Defaults, VchConfig

__all__ = ["MAX_VCPUS", "GuestSize", "Sizing"]

# Measured: 89 MiB of kernel, initramfs (36 MiB) and tether in an idle guest of 160 MiB.
_OVERHEAD_MIB = 60  # and the initramfs
# The kernel unpacks the initramfs into at most half of the memory that itself and the archive leave. Measured
# with an archive of 50 MiB: 192 MiB are too little, 208 enough; of 36 MiB: 112 too little.
_BOOT_MIB = 72  # and three times the initramfs
_PAGE_TABLE_SHARE = 48  # one part in so many: the kernel's page descriptors are 1/64 of all memory
MAX_VCPUS = 128
_MIB = 1 << 20
_NANO = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GuestSize:
    vcpus: int
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The arithmetic for one VCH's guest. Pure, but for :meth:`of`."""

    defaults: Defaults
    initrd_mib: int

    @classmethod
    def of(cls, config: VchConfig) -> Sizing:
        """Looks at the initramfs. One that is missing counts as empty: starting a VM then says so itself."""
        try:
            initrd = config.guest.initrd.stat().st_size
        except FileNotFoundError:
            initrd = 0
        return cls(defaults=config.defaults, initrd_mib=-(-initrd // _MIB))

    @property
    def smallest_mib(self) -> int:
        """The least memory that a guest boots with."""
        return _BOOT_MIB + 3 * self.initrd_mib

    def guest_size(self, resources: Resources) -> GuestSize:
        memory = self.defaults.memory_mib
        if resources.memory:
            limit = -(-resources.memory // _MIB)
            memory = limit - (-limit // _PAGE_TABLE_SHARE) + self._overhead_mib
        return GuestSize(vcpus=_vcpus(resources, self.defaults), memory_mib=max(memory, self.smallest_mib))

    def largest_limit(self, memory_mib: int) -> int:
        """The largest memory limit, in bytes, that a VM of this size has room for."""
        room = max(memory_mib - self._overhead_mib, 0)
        return room * _PAGE_TABLE_SHARE // (_PAGE_TABLE_SHARE + 1) * _MIB

    @property
    def _overhead_mib(self) -> int:
        return _OVERHEAD_MIB + self.initrd_mib


def _vcpus(resources: Resources, defaults: Defaults) -> int:
    if resources.nano_cpus:
        vcpus = -(-resources.nano_cpus // _NANO)
    elif resources.cpu_quota > 0:
        vcpus = -(-resources.cpu_quota // (resources.cpu_period or 100_000))
    else:
        vcpus = defaults.cpus
    if vcpus > MAX_VCPUS:
        raise PortLayerError(Reason.LIMIT_EXCEEDED, f"{vcpus} CPUs asked for; a VM has at most {MAX_VCPUS}")
    return max(vcpus, 1)
