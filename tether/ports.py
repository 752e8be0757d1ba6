"""The tether's two ways out: the channel and the journal, found by what the hardware calls them.

Virtio-serial ports have names. The vsphere profile has no virtio: there the
second and third ISA serial ports play the parts, as raw terminals.
"""

from __future__ import annotations

import os
import termios

from tether.uevents import Uevents

__all__ = ["CHANNEL", "JOURNAL", "Ports", "find_ports", "virtio_ports"]

CHANNEL = "mooring.channel"
JOURNAL = "mooring.journal"
_CLASS = "/sys/class/virtio-ports"
_SERIAL = {CHANNEL: "/dev/ttyS1", JOURNAL: "/dev/ttyS2"}
_SERIAL_TYPE = "/sys/class/tty/{}/type"
_NO_UART = "0"  # PORT_UNKNOWN: the kernel has the node, the machine has no chip


class Ports:
    """Open descriptors, or -1 for what this machine does not have, and what they are."""

    def __init__(self) -> None:
        self.channel = -1
        self.journal = -1
        self.forbidden: list[tuple[int, int | None]] = []  # devices the workload must not open


def find_ports(*, virtio_majors: list[int], seconds: float = 2) -> Ports:
    """Open both ports.

    Raises:
        OSError: a port is there and cannot be opened.
    """
    ports = Ports()
    ports.forbidden = [(major, None) for major in virtio_majors]
    serial = [path for path in _SERIAL.values() if _has_uart(path)]
    ports.forbidden += [(os.major(device), os.minor(device)) for device in map(_device, serial)]
    if not serial:
        uevents = Uevents()
        try:
            uevents.wait_for(
                lambda: virtio_ports() if len(virtio_ports()) == len(_SERIAL) else None, seconds=seconds
            )
        finally:
            uevents.close()
    named = virtio_ports()
    for name in (CHANNEL, JOURNAL):
        path = named.get(name) or (_SERIAL[name] if _SERIAL[name] in serial else "")
        if path:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            if path in serial:
                _make_raw(fd)
            if name == CHANNEL:
                ports.channel = fd
            else:
                ports.journal = fd
    return ports


def _both() -> dict[str, str] | None:
    found = virtio_ports()
    return found if len(found) == len(_SERIAL) else None


def virtio_ports() -> dict[str, str]:
    """Name -> device of every virtio-serial port."""
    try:
        ports = os.listdir(_CLASS)
    except FileNotFoundError:
        return {}
    found = {}
    for port in ports:
        try:
            fd = os.open(f"{_CLASS}/{port}/name", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # no name yet, or none at all
        try:
            found[os.read(fd, 256).decode(errors="replace").strip()] = f"/dev/{port}"
        finally:
            os.close(fd)
    return found


def _has_uart(path: str) -> bool:
    try:
        fd = os.open(_SERIAL_TYPE.format(path.rsplit("/", 1)[1]), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.read(fd, 16).decode().strip() != _NO_UART
    finally:
        os.close(fd)


def _device(path: str) -> int:
    return os.stat(path).st_rdev


def _make_raw(fd: int) -> None:
    """Every byte as it is, both ways, at the line's top speed (which the hypervisor ignores)."""
    attributes = termios.tcgetattr(fd)
    attributes[0] = termios.IGNBRK
    attributes[1] = 0
    attributes[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
    attributes[3] = 0
    attributes[4] = attributes[5] = termios.B115200
    attributes[6][termios.VMIN] = 1
    attributes[6][termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    termios.tcflush(fd, termios.TCIOFLUSH)
