"""Docker's resource limits as files of cgroup v2: pure.

The VM itself is the first limit: its memory and CPUs come from the same
numbers. These files make the finer ones true (fractions of a CPU, process
counts, a memory limit changed while running).
"""

from __future__ import annotations

from tether.tether_pb2 import Resources

__all__ = ["cgroup_files"]

_PERIOD = 100_000  # microseconds: the kernel's default
_MIN_QUOTA = 1000


def cgroup_files(resources: Resources) -> list[tuple[str, str, bool]]:
    """(file, value, whether it must be there) for every limit; absent limits give the unlimited value.

    Weights share a CPU or a disk between cgroups; in here there is one, so a
    kernel without them breaks no promise.
    """
    files = [
        ("memory.max", str(resources.memory) if resources.memory else "max", True),
        ("memory.swap.max", _swap(resources), False),
        ("memory.low", str(resources.memory_reservation), True),
        ("cpu.max", _cpu_max(resources), True),
        ("pids.max", str(resources.pids_limit) if resources.pids_limit > 0 else "max", True),
        ("cpu.weight", str(_cpu_weight(resources.cpu_shares)), False),
        # An empty line is how cgroup v2 spells "as the parent".
        ("cpuset.cpus", resources.cpuset_cpus or "\n", bool(resources.cpuset_cpus)),
    ]
    if resources.blkio_weight:
        files.append(("io.weight", str(_io_weight(resources.blkio_weight)), False))
    return files


def _swap(resources: Resources) -> str:
    """cgroup v2 counts swap alone, Docker memory and swap together; 0 means twice the memory."""
    if resources.memory_swap < 0 or not resources.memory:
        return "max"
    if resources.memory_swap == 0:
        return str(resources.memory)
    return str(max(resources.memory_swap - resources.memory, 0))


def _cpu_max(resources: Resources) -> str:
    period = resources.cpu_period or _PERIOD
    if resources.nano_cpus:
        return f"{max(resources.nano_cpus * period // 1_000_000_000, _MIN_QUOTA)} {period}"
    if resources.cpu_quota > 0:
        return f"{resources.cpu_quota} {period}"
    return f"max {period}"


def _cpu_weight(shares: int) -> int:
    """2…262144 shares onto 1…10000, as runc and crun convert."""
    if not shares:
        return 100
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def _io_weight(weight: int) -> int:
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990
