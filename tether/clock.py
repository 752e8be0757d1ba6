"""Time and randomness from the host: for VMs that slept, or are clones of another one."""

from __future__ import annotations

import fcntl
import os
import struct
import time

from tether import linux

__all__ = ["add_entropy", "set_time"]

_MAX_SEED = 4096
_MAX_TIME = 1 << 62  # nanoseconds: the year 2116


def set_time(nanoseconds: int) -> int:
    """Set the clock; returns how far the guest was ahead of the host.

    Raises:
        ValueError: no sensible date.
    """
    if not 0 < nanoseconds < _MAX_TIME:
        raise ValueError(f"{nanoseconds} is no date")
    drift = time.time_ns() - nanoseconds
    time.clock_settime_ns(time.CLOCK_REALTIME, nanoseconds)
    return drift


def add_entropy(seed: bytes) -> None:
    """Mix ``seed`` in, credit it, and make the kernel draw its next keys from it.

    Raises:
        ValueError: an empty or outsized seed.
    """
    if not 0 < len(seed) <= _MAX_SEED:
        raise ValueError(f"a seed has 1 to {_MAX_SEED} bytes, not {len(seed)}")
    fd = os.open("/dev/random", os.O_RDWR | os.O_CLOEXEC)
    try:
        # struct rand_pool_info: entropy in bits, size in bytes, then the bytes
        fcntl.ioctl(fd, linux.RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(fd, linux.RNDRESEEDCRNG)
    finally:
        os.close(fd)
