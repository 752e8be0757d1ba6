"""Sparse VMDK files (monolithicSparse), written and read as far as a chain needs it.

Byte for byte what ``qemu-img create -f vmdk [-b parent]`` makes, in a
millisecond instead of fifteen: an image is a header, a text descriptor and two
copies of the grain tables, all of them empty.

A child names its parent by path and by the content ID (CID) the parent had.
QEMU changes a disk's CID at the first write of every read-write open, and
refuses a child whose parent's CID is another one: finish a disk before it gets
children, and never write to it again.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    StrPath = str | os.PathLike[str]

__all__ = ["Descriptor", "VmdkError", "create", "parent_of", "read_descriptor"]

SECTOR = 512
_GRAIN = 128  # sectors: 64 KiB
_TABLE_ENTRIES = 512
_DESCRIPTOR_SECTORS = 20
_FIRST_TABLE = 1 + _DESCRIPTOR_SECTORS
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_NO_PARENT = 0xFFFFFFFF
_FLAGS = 3  # line-feed test is valid, redundant tables are used


class VmdkError(Exception):
    """The file is not a sparse VMDK we can build on; the message names it."""


class Descriptor:
    """What a disk says about itself."""

    __slots__ = ("capacity", "cid", "parent_cid", "parent_hint")

    def __init__(self, *, capacity: int, cid: int, parent_cid: int, parent_hint: str) -> None:
        self.capacity = capacity  # bytes
        self.cid = cid
        self.parent_cid = parent_cid  # 0xffffffff: none
        self.parent_hint = parent_hint  # path, relative to the disk's directory


def read_descriptor(path: StrPath) -> Descriptor:
    with open(path, "rb") as file:
        head = file.read(SECTOR * _FIRST_TABLE)
    if len(head) < SECTOR * _FIRST_TABLE or head[:4] != b"KDMV":
        raise VmdkError(f"{path} is not a sparse VMDK")
    capacity = _HEADER.unpack_from(head)[3]
    fields: dict[str, str] = {}
    for line in head[SECTOR:].split(b"\0", 1)[0].decode("utf-8", "replace").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            fields.setdefault(key.strip(), value.strip().strip('"'))
    try:
        return Descriptor(
            capacity=capacity * SECTOR,
            cid=int(fields["CID"], 16),
            parent_cid=int(fields["parentCID"], 16),
            parent_hint=fields.get("parentFileNameHint", ""),
        )
    except (KeyError, ValueError) as error:
        raise VmdkError(f"{path} has no usable descriptor: {error}") from error


def parent_of(path: StrPath) -> str:
    """The disk that ``path`` is a child of."""
    hint = read_descriptor(path).parent_hint
    if not hint:
        raise VmdkError(f"{path} has no parent")
    return os.path.normpath(os.path.join(os.path.dirname(path), hint))


def create(path: StrPath, *, capacity: int = 0, parent: StrPath | None = None) -> None:
    """Make an empty disk, or a child of ``parent`` (of its size, or a larger ``capacity``).

    The file is not synced: the caller does that for the directory it makes around it.
    """
    parent_cid, hint = _NO_PARENT, ""
    if parent is not None:
        descriptor = read_descriptor(parent)
        parent_cid = descriptor.cid
        capacity = max(capacity, descriptor.capacity)
        hint = os.path.relpath(parent, os.path.dirname(path) or ".")
    # a CID like "none" would cut the chain; the highest bit is ours to give away
    cid = int.from_bytes(os.urandom(4), "little") & 0x7FFFFFFF
    sectors = -(-capacity // SECTOR)
    tables = -(-sectors // (_GRAIN * _TABLE_ENTRIES))
    table_sectors = tables * _TABLE_ENTRIES * 4 // SECTOR
    directory_sectors = -(-tables * 4 // SECTOR)
    second = _FIRST_TABLE + directory_sectors + table_sectors
    end = second + directory_sectors + table_sectors
    end += -end % _GRAIN
    geometry = (sectors, _GRAIN, 1, _DESCRIPTOR_SECTORS, _TABLE_ENTRIES, _FIRST_TABLE, second, end)
    header = _HEADER.pack(b"KDMV", 1, _FLAGS, *geometry, 0, b"\n \r\n", 0)
    text = _descriptor(os.path.basename(path), sectors, cid, parent_cid, hint)
    if len(text) > _DESCRIPTOR_SECTORS * SECTOR:
        raise VmdkError(f"{path}: the path of the parent is too long")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, end * SECTOR)
        os.pwrite(fd, header.ljust(SECTOR, b"\0") + text, 0)
        for start in (_FIRST_TABLE, second):
            first = start + directory_sectors
            step = _TABLE_ENTRIES * 4 // SECTOR
            os.pwrite(
                fd, struct.pack(f"<{tables}I", *range(first, first + tables * step, step)), start * SECTOR
            )
    finally:
        os.close(fd)


def _descriptor(name: str, sectors: int, cid: int, parent_cid: int, hint: str) -> bytes:
    parent = f'parentFileNameHint="{hint}"' if hint else ""
    return (
        "# Disk DescriptorFile\n"
        "version=1\n"
        f"CID={cid:x}\n"
        f"parentCID={parent_cid:x}\n"
        'createType="monolithicSparse"\n'
        f"{parent}\n"
        "# Extent description\n"
        f'RW {sectors} SPARSE "{name}"\n'
        "\n# The Disk Data Base\n#DDB\n\n"
        'ddb.virtualHWVersion = "4"\n'
        f'ddb.geometry.cylinders = "{sectors // (16 * 63)}"\n'
        'ddb.geometry.heads = "16"\n'
        'ddb.geometry.sectors = "63"\n'
        'ddb.adapterType = "ide"\n'
        'ddb.toolsVersion = "2147483647"\n'
    ).encode()
