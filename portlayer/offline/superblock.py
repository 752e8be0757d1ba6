"""The few fields of an ext4 superblock we decide by. No I/O."""

from __future__ import annotations

import struct

__all__ = ["SUPERBLOCK_OFFSET", "SUPERBLOCK_SIZE", "Superblock", "SuperblockError"]

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_SIZE = 1024
_MAGIC = 0xEF53
_STATE_CLEAN = 1
_STATE_ERRORS = 2
_INCOMPAT_RECOVER = 4


class SuperblockError(Exception):
    """There is no ext file system."""


class Superblock:
    __slots__ = ("clean", "errors", "needs_recovery")

    def __init__(self, data: bytes) -> None:
        if len(data) < SUPERBLOCK_SIZE or struct.unpack_from("<H", data, 0x38)[0] != _MAGIC:
            raise SuperblockError("the disk has no ext4 file system")
        (state,) = struct.unpack_from("<H", data, 0x3A)
        (incompatible,) = struct.unpack_from("<I", data, 0x60)
        self.clean = bool(state & _STATE_CLEAN)
        self.errors = bool(state & _STATE_ERRORS)
        self.needs_recovery = bool(incompatible & _INCOMPAT_RECOVER)
