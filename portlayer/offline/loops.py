"""Loop devices: free ones are asked for, missing nodes are made, and each one detaches itself.

The kernel has as many loop devices as are asked for, but a machine without a
devtmpfs has only the nodes somebody made. So the node is made in a directory
of our own. With LO_FLAGS_AUTOCLEAR the device lets go of its file when its
last user (the mount) does, whatever happens to us.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time

__all__ = ["attach", "wait_until_free"]

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block size, struct loop_info64 (flags at 52, file name at 56), reserved
_CONFIG = struct.Struct("=II 52xI64s64x32x16x64x")
_ATTEMPTS = 100
_DEADLINE = 30.0


def attach(path: str, *, read_only: bool, nodes: str) -> tuple[int, int, str]:
    """Put a loop device on a file: (its number, a descriptor that keeps it until it is mounted, its node).

    Others take free devices, too: being second costs another attempt.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    config = _CONFIG.pack(file, 0, flags, os.fsencode(path)[-63:])
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            node = _node(number, nodes)
            device = os.open(node, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno not in (errno.EBUSY, errno.ENXIO):
                    raise
                continue
            return number, device, node
    finally:
        os.close(file)
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device is free")


def wait_until_free(number: int) -> None:
    """Until the device has let go of its file; udev may hold it open for a moment."""
    deadline = time.monotonic() + _DEADLINE
    while is_attached(number):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, f"loop{number} is still in use")
        time.sleep(0.001)  # the kernel announces this to nobody


def is_attached(number: int) -> bool:
    return os.path.exists(f"/sys/block/loop{number}/loop/backing_file")


def _node(number: int, nodes: str) -> str:
    node = f"{nodes}/loop{number}"
    if not os.path.exists(node):
        with open(f"/sys/block/loop{number}/dev", encoding="ascii") as file:
            major, minor = map(int, file.read().split(":"))
        os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    return node
