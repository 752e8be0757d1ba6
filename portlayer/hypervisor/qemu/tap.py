"""Opening a tap device for QEMU, which itself may not."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from portlayer.hypervisor.base import HypervisorError

__all__ = ["open_tap"]

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000


def open_tap(name: str) -> int:
    """A descriptor of the existing tap ``name``, to be handed over.

    Raises:
        HypervisorError: there is no such interface (the kernel would make one
            that is on no bridge), it is no tap, or it is in use.
    """
    try:
        socket.if_nametoindex(name)
    except OSError as error:
        raise HypervisorError(f"tap {name}: there is no such interface") from error
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError as error:
        os.close(descriptor)
        raise HypervisorError(f"tap {name}: {error.strerror}") from error
    return descriptor
