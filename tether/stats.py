"""Resource counters of the container, from cgroup v2 and the VM's network devices.

Parsers are pure and take the text of a kernel file; `Sampler` reads the files.
"""

from __future__ import annotations

import os
import time

from tether.cgroup import Cgroup, flat_keyed, read
from tether.tether_pb2 import BlockCounters, NetworkCounters, Resources, Stats

__all__ = ["Sampler", "block_counters", "network_counters", "system_cpu"]

_MICRO = 1000  # cgroup v2 counts microseconds, we nanoseconds
_USER_HZ = 100  # the kernel's promise to user space on x86, whatever HZ is
_PROC_NET_DEV_FIELDS = 16


class Sampler:
    """Takes samples of one cgroup."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup

    def sample(self, resources: Resources) -> Stats:
        """The counters now.

        Raises:
            FileNotFoundError: the cgroup is not there (any more).
        """
        cpu = flat_keyed(self._read("cpu.stat"))
        limit = self._read("memory.max").strip()
        pids_limit = self._read("pids.max").strip()
        return Stats(
            time=time.time_ns(),
            cpu_usage=cpu.get("usage_usec", 0) * _MICRO,
            cpu_user=cpu.get("user_usec", 0) * _MICRO,
            cpu_system=cpu.get("system_usec", 0) * _MICRO,
            system_cpu=system_cpu(read("/proc/stat")),
            online_cpus=os.cpu_count() or 1,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_time=cpu.get("throttled_usec", 0) * _MICRO,
            memory_usage=self._number("memory.current"),
            # Without a limit of its own the container has the VM's memory.
            memory_limit=int(limit) if limit.isdigit() else _total_memory(),
            memory_max_usage=self._number("memory.peak"),
            memory_stat=flat_keyed(self._read("memory.stat")),
            pids=self._number("pids.current"),
            pids_limit=int(pids_limit) if pids_limit.isdigit() else 0,
            networks=network_counters(read("/proc/net/dev")),
            blocks=block_counters(self._read("io.stat")),
            oom_kills=self._cgroup.oom_kills(),
        )

    def _read(self, name: str) -> str:
        return read(f"{self._cgroup.path}/{name}")

    def _number(self, name: str) -> int:
        try:
            return int(self._read(name))
        except FileNotFoundError:  # memory.peak is younger than some kernels
            return 0


def system_cpu(proc_stat: str) -> int:
    """Nanoseconds of all CPUs since boot, from the first line of /proc/stat (guest time is in user time)."""
    fields = proc_stat.split("\n", 1)[0].split()[1:9]
    return sum(int(field) for field in fields) * (1_000_000_000 // _USER_HZ)


def network_counters(proc_net_dev: str) -> list[NetworkCounters]:
    """Every device but the loopback."""
    result = []
    for line in proc_net_dev.splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = [int(field) for field in rest.split()]
        if name.strip() == "lo" or len(fields) < _PROC_NET_DEV_FIELDS:
            continue
        result.append(
            NetworkCounters(
                name=name.strip(),
                rx_bytes=fields[0],
                rx_packets=fields[1],
                rx_errors=fields[2],
                rx_dropped=fields[3],
                tx_bytes=fields[8],
                tx_packets=fields[9],
                tx_errors=fields[10],
                tx_dropped=fields[11],
            )
        )
    return result


def block_counters(io_stat: str) -> list[BlockCounters]:
    result = []
    for line in io_stat.splitlines():
        device, *words = line.split()
        major, separator, minor = device.partition(":")
        if not separator:
            continue
        values = {
            name: int(value) for name, _, value in (word.partition("=") for word in words) if value.isdigit()
        }
        result.append(
            BlockCounters(
                major=int(major),
                minor=int(minor),
                read_bytes=values.get("rbytes", 0),
                write_bytes=values.get("wbytes", 0),
                read_ops=values.get("rios", 0),
                write_ops=values.get("wios", 0),
            )
        )
    return result


def _total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
