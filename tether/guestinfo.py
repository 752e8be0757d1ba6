"""What the VM's host shows of guestinfo, and what we show it: on vSphere, or in its lab.

VMware's requests are text: ``info-get KEY`` is answered by ``1 VALUE`` or ``0 why``.
How they travel is the machine's business: the lab has a virtio-serial port with a
line for each; a machine that has none of the ways is not vSphere.
"""

from __future__ import annotations

import os
import select

from tether.ports import virtio_ports

__all__ = ["BOOT", "DISKS", "GOODBYE", "RUN", "Guestinfo", "GuestinfoError"]

BOOT = "guestinfo.mooring.boot"  # gzip and base64 of a serialized BootConfig
DISKS = "guestinfo.mooring.disks"  # "id=SCSI address …": the frozen guest has no JSON
RUN = "guestinfo.mooring.run"  # our boot nonce: another one under the same power is a reset
GOODBYE = "guestinfo.mooring.goodbye"  # the power goes off because we want it
_PORT = "org.lab.guestinfo"
_SECONDS = 10
_LARGEST = 16 << 20


class GuestinfoError(Exception):
    """The host did not answer, or not as it should."""


class Guestinfo:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""

    @classmethod
    def find(cls) -> Guestinfo | None:
        """None: this machine has no guestinfo."""
        path = virtio_ports().get(_PORT)
        return None if path is None else cls(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))

    def __enter__(self) -> Guestinfo:
        return self

    def __exit__(self, *exc: object) -> None:
        """A port has one opener at a time."""
        os.close(self._fd)

    def get(self, key: str) -> str | None:
        found, value = self._ask(f"info-get {key}")
        return value if found else None

    def set(self, key: str, value: str) -> None:
        found, why = self._ask(f"info-set {key} {value}")
        if not found:
            raise GuestinfoError(f"{key}: {why}")

    def _ask(self, request: str) -> tuple[bool, str]:
        self._send(request.encode() + b"\n")
        line = self._line().decode(errors="replace")
        while line.startswith("! "):  # said unasked: the host's wish for a shutdown comes by the channel, too
            line = self._line().decode(errors="replace")
        status, _, value = line.partition(" ")
        return status == "1", value

    def _send(self, data: bytes) -> None:
        while data:
            self._wait(select.POLLOUT)
            data = data[os.write(self._fd, data) :]

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LARGEST:
                raise GuestinfoError(f"an answer is above {_LARGEST} bytes")
            self._wait(select.POLLIN)
            piece = os.read(self._fd, 1 << 16)
            if not piece:
                raise GuestinfoError("the host has hung up")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._fd, event)
        if not poll.poll(_SECONDS * 1000):
            raise GuestinfoError(f"the host has not answered in {_SECONDS} s")
