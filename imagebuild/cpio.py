"""A cpio archive in the "newc" format, the one the Linux kernel unpacks as initramfs.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
Everything that varies between builds (times, inode numbers, owners) is fixed,
so the same tree always gives the same bytes.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["CpioWriter", "Node"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One member. ``name`` is relative ("usr/bin/tini"); ``mode`` holds type and permissions."""

    name: str
    mode: int
    data: bytes = b""  # file content or link target
    rdev: tuple[int, int] = (0, 0)  # major, minor of a device node


class CpioWriter:
    """Writes members to ``output`` in the order given; close() adds the trailer."""

    def __init__(self, output: BinaryIO, *, mtime: int = 0) -> None:
        self._output = output
        self._mtime = mtime
        self._inode = 0

    def add(self, node: Node) -> None:
        self._inode += 1
        links = 2 if stat.S_ISDIR(node.mode) else 1
        self._write(node, inode=self._inode, links=links, mtime=self._mtime)

    def close(self) -> None:
        self._write(Node(name="TRAILER!!!", mode=0), inode=0, links=1, mtime=0)

    def _write(self, node: Node, *, inode: int, links: int, mtime: int) -> None:
        name = node.name.encode() + b"\0"
        fields = (
            inode,
            node.mode,
            0,  # uid: root
            0,  # gid: root
            links,
            mtime,
            len(node.data),
            0,  # device the archive came from
            0,
            *node.rdev,
            len(name),
            0,  # checksum: unused in newc
        )
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._output.write(_padded(header + name))
        self._output.write(_padded(node.data))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
