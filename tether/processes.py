"""`docker top`: the container's processes, from /proc of the VM, limited to the container's PID namespace.

A process may end between two reads: it is then left out.
"""

from __future__ import annotations

import os
import time

from tether.tether_pb2 import ProcessInfo

__all__ = ["list_processes", "parse_stat"]

_USER_HZ = 100
_TICK = 1_000_000_000 // _USER_HZ
_PAGE = 4096
_MAX_COMMAND_LINE = 8192
_UNIX98_MAJORS = range(136, 144)


def list_processes(namespace: str, names: dict[int, str]) -> list[ProcessInfo]:
    """Every process whose PID namespace link reads ``namespace``; ``names`` are user names by ID."""
    boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.readlink(f"/proc/{name}/ns/pid") != namespace:
                continue
            uid = os.stat(f"/proc/{name}").st_uid
            info = parse_stat(_read(f"/proc/{name}/stat").decode(errors="replace"), boot=boot)
            line = _read(f"/proc/{name}/cmdline")
        except (FileNotFoundError, ProcessLookupError):
            continue
        info.uid, info.user = uid, names.get(uid, str(uid))
        info.argv.extend(line.rstrip(b"\0").split(b"\0") if line else [])
        found.append(info)
    return sorted(found, key=lambda info: info.pid)


def parse_stat(text: str, *, boot: int) -> ProcessInfo:
    """One line of /proc/<pid>/stat; ``boot`` is the date of boot. The name may hold brackets too."""
    head, _, rest = text.rpartition(")")
    pid, _, comm = head.partition(" (")
    fields = rest.split()
    cpu = (int(fields[11]) + int(fields[12])) * _TICK
    started = int(fields[19]) * _TICK
    age = max(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started, 1)
    return ProcessInfo(
        pid=int(pid),
        ppid=int(fields[1]),
        stat=fields[0],
        tty=_terminal(int(fields[4])),
        cpu_ns=cpu,
        start_time=boot + started,
        vsz=int(fields[20]),
        rss=int(fields[21]) * _PAGE,
        comm=comm,
        cpu_percent=min(cpu * 100 // age, 1 << 31),
    )


def _terminal(device: int) -> str:
    """The kernel packs the number as it did before large device numbers (linux/kdev_t.h)."""
    if device == 0:
        return "?"
    major = device >> 8 & 0xFFF
    minor = device & 0xFF | device >> 12 & 0xFFF00
    if major in _UNIX98_MAJORS:
        return f"pts/{minor + 256 * (major - _UNIX98_MAJORS.start)}"
    return f"{major}:{minor}"


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MAX_COMMAND_LINE)
    finally:
        os.close(fd)
