"""An initramfs whose only program prints a marker and powers off.

Made from nothing but these constants, so that the probe needs the kernel and no
other file. The program is 64-bit Linux machine code: write(1, marker), then
reboot(POWER_OFF).
"""

from __future__ import annotations

import struct

__all__ = ["MARKER", "initramfs"]

MARKER = b"mooring-probe-ok\n"
BASE = 0x400000
S_IFREG, S_IFDIR, S_IFCHR = 0o100000, 0o040000, 0o020000


def initramfs() -> bytes:
    """A cpio archive (newc) with /init and the console it writes to."""
    entries = (
        _entry(1, b"dev", S_IFDIR | 0o755),
        _entry(2, b"dev/console", S_IFCHR | 0o600, device=(5, 1)),
        _entry(3, b"init", S_IFREG | 0o755, content=_program()),
        _entry(0, b"TRAILER!!!", 0),
    )
    return b"".join(entries)


def _program() -> bytes:
    header_size = 64 + 56
    tail = b"".join(
        (
            b"\xba" + struct.pack("<I", len(MARKER)),  # mov edx, length
            bytes.fromhex("0f05"),  # syscall
            bytes.fromhex("b8a9000000"),  # mov eax, 169 (reboot)
            bytes.fromhex("bfaddee1fe"),  # mov edi, 0xfee1dead
            bytes.fromhex("be69191228"),  # mov esi, 0x28121969
            bytes.fromhex("badcfe2143"),  # mov edx, 0x4321fedc (POWER_OFF)
            bytes.fromhex("0f05"),  # syscall
            bytes.fromhex("ebfe"),  # jmp here
        )
    )
    head = b"".join(
        (
            bytes.fromhex("b801000000"),  # mov eax, 1 (write)
            bytes.fromhex("bf01000000"),  # mov edi, 1
            bytes.fromhex("488d35") + struct.pack("<i", len(tail)),  # lea rsi, [rip + tail]: the marker
        )
    )
    code = head + tail
    size = header_size + len(code) + len(MARKER)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # executable
        62,  # x86-64
        1,
        BASE + header_size,
        64,  # program headers
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)  # PT_LOAD, r-x
    return elf + segment + code + MARKER


def _entry(
    inode: int, name: bytes, mode: int, *, content: bytes = b"", device: tuple[int, int] = (0, 0)
) -> bytes:
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
