"""Docker's stream framing for containers without a terminal. No I/O.

Each frame is 8 bytes of header (stream, three zeros, length big-endian) and the
bytes. Stream 3 carries an error of ours; clients stop with its text.
"""

from __future__ import annotations

import struct

from engine.http import Request

__all__ = ["STDERR", "STDOUT", "SYSTEM_ERROR", "frame", "hijack_type", "stream_type"]

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3

_HEADER = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    return _HEADER.pack(stream, len(data)) + data


def stream_type(version: tuple[int, int], *, tty: bool) -> str:
    """The content type of output: newer clients are told whether it is framed."""
    return MULTIPLEXED if version >= (1, 42) and not tty else RAW


def hijack_type(request: Request, *, tty: bool) -> str:
    return stream_type(request.version, tty=tty) if request.upgrade else RAW
