"""From what a container asks for to the size of its VM.

A memory limit is the workload's; the guest's kernel and tether need room
beside it. Memory that a guest never touches costs the host nothing, so there is
a floor that every guest boots with, whatever its limit. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Resources
from vch.config import Defaults

__all__ = ["MAX_VCPUS", "SMALLEST_MIB", "GuestSize", "guest_size", "largest_limit"]

_OVERHEAD_MIB = 96  # measured: 89 MiB of kernel, initramfs and tether in an idle guest of 160 MiB
_PAGE_TABLE_SHARE = 48  # one part in so many: the kernel's page descriptors are 1/64 of all memory
SMALLEST_MIB = 192  # with 112 MiB the kernel cannot unpack its initramfs
MAX_VCPUS = 128
_MIB = 1 << 20
_NANO = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GuestSize:
    vcpus: int
    memory_mib: int


def guest_size(resources: Resources, defaults: Defaults) -> GuestSize:
    memory = defaults.memory_mib
    if resources.memory:
        limit = -(-resources.memory // _MIB)
        memory = max(limit - (-limit // _PAGE_TABLE_SHARE) + _OVERHEAD_MIB, SMALLEST_MIB)
    return GuestSize(vcpus=_vcpus(resources, defaults), memory_mib=memory)


def largest_limit(memory_mib: int) -> int:
    """The largest memory limit, in bytes, that a VM of this size has room for."""
    return max(memory_mib - _OVERHEAD_MIB, 0) * _PAGE_TABLE_SHARE // (_PAGE_TABLE_SHARE + 1) * _MIB


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
