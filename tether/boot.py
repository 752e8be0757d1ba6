"""From the kernel's hand-over to a machine that can run a container.

The kernel starts us on its initial file system, whose root cannot be pivoted
away from; so the first act is to move onto a bind mount of it, over which
pivot_root works.
"""

from __future__ import annotations

import contextlib
import errno
import os

from tether import linux
from tether.cgroup import BASE, enable_controllers, read, write

__all__ = ["leave_initial_root", "load_modules", "mount_kernel_file_systems", "set_machine_defaults"]

MODULES = "/etc/mooring/modules"  # imagebuild writes it: a path and PCI IDs a line, in dependency order
_NEW_ROOT = "/.root"
_NSE = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_NO_MEMORY_LIMIT = (1 << 64) - 1


def leave_initial_root() -> None:
    os.makedirs(_NEW_ROOT, exist_ok=True)
    linux.mount("/", _NEW_ROOT, flags=linux.MS_BIND)
    os.chdir(_NEW_ROOT)
    linux.mount(".", "/", flags=linux.MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def mount_kernel_file_systems() -> None:
    linux.mount("proc", "/proc", "proc", _NSE)
    linux.mount("sysfs", "/sys", "sysfs", _NSE)
    linux.mount("devtmpfs", "/dev", "devtmpfs", linux.MS_NOSUID, "mode=755")
    for path, fstype, flags, data in (
        ("/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"),
        ("/dev/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777"),  # noqa: S108 - a mount point
        ("/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755"),
    ):
        os.makedirs(path, exist_ok=True)
        linux.mount(fstype, path, fstype, flags, data)
    os.makedirs("/run/mooring", mode=0o700, exist_ok=True)
    _mount_cgroups()


def _mount_cgroups() -> None:
    """With favordynmods (Linux 6.0) a process is moved in without waiting for an RCU grace period.

    That wait is 30 ms of every exec at HZ=100.
    """
    for data in ("memory_recursiveprot,favordynmods", "memory_recursiveprot", ""):
        try:
            linux.mount("cgroup2", BASE, "cgroup2", _NSE, data)
        except OSError as error:
            if error.errno != errno.EINVAL or not data:
                raise
        else:
            return


def set_machine_defaults() -> list[str]:
    """Limits and switches of the whole VM; returns what this kernel lacks."""
    missing = [f"cgroup controller {name}" for name in enable_controllers()]
    for path, value in (
        ("/proc/sys/fs/file-max", "9223372036854775807"),
        ("/proc/sys/fs/nr_open", "1073741816"),
        ("/proc/sys/kernel/panic", "-1"),  # a crashed guest must not hang: the host sees it go
        ("/proc/self/oom_score_adj", "-1000"),
    ):
        try:
            write(path, value)
        except OSError as error:
            missing.append(str(error))
    return missing


def load_modules() -> list[str]:
    """Load what the image lists and this machine has hardware for; returns what failed, one text each."""
    try:
        lines = read(MODULES).splitlines()
    except FileNotFoundError:
        return []  # a kernel with everything built in
    present = _pci_ids()
    failed = []
    for line in lines:
        path, *wanted = line.split()
        if wanted and not present.intersection(wanted):
            continue
        try:
            _load_module(path)
        except OSError as error:
            failed.append(str(error))
    return failed


def _load_module(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.finit_module(fd, path)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    finally:
        os.close(fd)


def _pci_ids() -> set[str]:
    """ "vendor" and "vendor:device" of every PCI device, as in the module list."""
    found = set()
    base = "/sys/bus/pci/devices"
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(base):
            vendor = read(f"{base}/{name}/vendor").strip().removeprefix("0x")
            device = read(f"{base}/{name}/device").strip().removeprefix("0x")
            found |= {vendor, f"{vendor}:{device}"}
    return found
