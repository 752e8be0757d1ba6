"""Build a container around the calling process. Runs in a forked child of the tether, never in PID 1.

Order is the security argument: the root is pivoted first, so every later path
is resolved by the kernel inside the container's own file system, where a
hostile symlink reaches nothing that the container does not own. What must come
in from outside (volumes, /etc files) is opened before, as detached mount trees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from tether import linux
from tether.devices import DEFAULT_NODES, LINKS, Node
from tether.plan import Bind, FileSystem, Plan

__all__ = ["CGROUP", "contain"]

CGROUP = "/sys/fs/cgroup/container"


def contain(plan: Plan, root: str, nodes: list[Node]) -> None:
    """Leave the caller in new namespaces, rooted in ``root``, with every mount of ``plan`` made.

    Args:
        root: mount point of the container's root file system in the tether's view.
        nodes: device nodes to make beside Docker's default ones.

    Raises:
        OSError: what failed is in its text; the process is unusable.
    """
    sources = {
        mount.destination: linux.open_tree(mount.source) for mount in plan.mounts if isinstance(mount, Bind)
    }
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWCGROUP)
    linux.mount("", "/", flags=linux.MS_PRIVATE | linux.MS_REC)
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    linux.sethostname(plan.hostname)
    if plan.domainname:
        linux.setdomainname(plan.domainname)
    for mount in plan.mounts:
        if isinstance(mount, Bind):
            _attach(mount, sources.pop(mount.destination))
        else:
            _mount(mount)
        if mount.destination == "/dev":
            _make_devices(nodes)
    _write_sysctls(plan.sysctls)
    for path in plan.read_only:
        _protect(path)
    for path in plan.masked:
        _mask(path)
    if plan.read_only_root:
        linux.set_read_only("/")


def _mount(mount: FileSystem) -> None:
    data = mount.data
    if mount.keep_mode and "mode=" not in data:
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(mount.destination).st_mode)
            data = f"mode={mode:04o},{data}".rstrip(",")
    os.makedirs(mount.destination, mode=0o755, exist_ok=True)
    linux.mount(mount.fstype, mount.destination, mount.fstype, mount.flags, data)


def _attach(mount: Bind, tree: int) -> None:
    if mount.directory:
        os.makedirs(mount.destination, mode=0o755, exist_ok=True)
    else:
        _make_file(mount.destination)
    try:
        linux.move_mount(tree, mount.destination)
    finally:
        os.close(tree)
    if mount.read_only:
        linux.set_read_only(mount.destination, recursive=True)


def _make_file(path: str) -> None:
    """Something to mount a file on; a symlink that leads nowhere is replaced by it."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if not os.path.exists(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _make_devices(nodes: list[Node]) -> None:
    mask = os.umask(0)
    for name, major, minor in DEFAULT_NODES:
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in LINKS:
        os.symlink(target, f"/dev/{name}")
    for node in nodes:
        path = f"/dev/{node.name}"
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mknod(path, node.mode, node.rdev)
    os.umask(mask)


def _write_sysctls(sysctls: list[tuple[str, str, bool]]) -> None:
    for name, value, required in sysctls:
        path = "/proc/sys/" + name.replace(".", "/")
        try:
            _write(path, value)
        except OSError as error:
            if required:
                number = error.errno or errno.EIO
                raise linux.SyscallError(number, "write sysctl", f"{name}={value}") from error


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _protect(path: str) -> None:
    if os.path.exists(path):
        linux.bind(path, path)
        linux.set_read_only(path)


def _mask(path: str) -> None:
    if os.path.isdir(path):
        linux.mount("tmpfs", path, "tmpfs", linux.MS_RDONLY, "size=0,nr_inodes=2")
    elif os.path.exists(path):
        linux.bind("/dev/null", path)
