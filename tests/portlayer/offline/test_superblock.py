import struct

import pytest

from portlayer.offline.superblock import SUPERBLOCK_SIZE, Superblock, SuperblockError


def block(*, state: int = 1, incompatible: int = 0, magic: int = 0xEF53) -> bytes:
    data = bytearray(SUPERBLOCK_SIZE)
    struct.pack_into("<HH", data, 0x38, magic, state)
    struct.pack_into("<I", data, 0x60, incompatible)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "clean", "errors", "needs_recovery"),
    [
        (block(), True, False, False),
        (block(state=0), False, False, False),
        (block(state=3), True, True, False),
        (block(incompatible=0x2C6), True, False, True),
        (block(incompatible=0x2C2), True, False, False),
    ],
)
def test_fields(data: bytes, clean: bool, errors: bool, needs_recovery: bool) -> None:
    found = Superblock(data)
    assert (found.clean, found.errors, found.needs_recovery) == (clean, errors, needs_recovery)


@pytest.mark.parametrize("data", [b"", block()[:-1], block(magic=0x1234), bytes(SUPERBLOCK_SIZE)])
def test_what_is_no_file_system(data: bytes) -> None:
    with pytest.raises(SuperblockError, match="no ext4"):
        Superblock(data)
