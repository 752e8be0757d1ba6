"""What somebody who hunts a fault wants to see of the guest, in one answer."""

from __future__ import annotations

import errno
import os
import sys

from tether.cgroup import read
from tether.tether_pb2 import DiagnosticsReply

__all__ = ["diagnose", "resident_bytes"]

_MAX_KERNEL_LOG = 256 << 10
_MAX_FACT = 16 << 10
_FACTS = {
    "meminfo": "/proc/meminfo",
    "mounts": "/proc/self/mounts",
    "interfaces": "/proc/net/dev",
    "partitions": "/proc/partitions",
    "uptime": "/proc/uptime",
    "loadavg": "/proc/loadavg",
    "version": "/proc/version",
    "command line": "/proc/cmdline",
    "memory.events": "/sys/fs/cgroup/container/memory.events",
    "pressure": "/proc/pressure/memory",
}


def diagnose(log: list[str], facts: dict[str, str]) -> DiagnosticsReply:
    collected = dict(facts)
    for name, path in _FACTS.items():
        try:
            collected[name] = read(path)[:_MAX_FACT]
        except OSError as error:  # a fact as well
            collected[name] = f"({error.strerror})"
    collected["python"] = sys.version.split()[0]
    collected["modules"] = str(len(sys.modules))
    return DiagnosticsReply(dmesg=_kernel_log(), log=log, facts=collected)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(read("/proc/self/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _kernel_log() -> str:
    """The tail of the kernel's ring, one line a record (Documentation/ABI/testing/dev-kmsg)."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    lines: list[str] = []
    try:
        while True:
            try:
                record = os.read(fd, 8192)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while we read: go on with the next one
                    continue
                raise
            head, _, text = record.decode(errors="replace").partition(";")
            stamp = int(head.split(",")[2]) / 1e6
            lines.append(f"[{stamp:12.6f}] {text.splitlines()[0] if text else ''}")
    finally:
        os.close(fd)
    return "\n".join(lines)[-_MAX_KERNEL_LOG:]
