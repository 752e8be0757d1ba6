"""From what a container asks for to the size of its VM.

A memory limit is the workload's; the guest's kernel and tether need room
beside it. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Resources
from vch.config import Defaults

__all__ = ["GUEST_OVERHEAD_MIB", "MAX_VCPUS", "GuestSize", "guest_size"]

GUEST_OVERHEAD_MIB = 96  # kernel, initramfs and tether beside the workload
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
        memory = -(-resources.memory // _MIB) + GUEST_OVERHEAD_MIB
    return GuestSize(vcpus=_vcpus(resources, defaults), memory_mib=memory)


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
