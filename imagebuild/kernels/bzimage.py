"""The kernel inside a bzImage: unpacked here once, not by every guest at every boot.

Inflating is a third of a boot under emulation. What comes out is an ELF file that
a hypervisor can start at its PVH entry, if the kernel was configured with one. It
starts at the address that it was linked for: nobody moves it to a random one.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from imagebuild.kernels import KernelError

__all__ = ["unpack_bzimage"]

# Documentation/arch/x86/boot.rst
_SETUP_SECTORS = 0x1F1
_MAGIC, _MAGIC_AT = b"HdrS", 0x202
_PAYLOAD = struct.Struct("<II")  # offset behind the setup sectors, length
_PAYLOAD_AT = 0x248
_SECTOR = 512
_SIZE_BYTES = 4  # the build appends the unpacked size

_ELF = b"\x7fELF\x02\x01"
_PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQ")
_PT_NOTE = 4
_NOTE = struct.Struct("<III")  # sizes of name and content, type
_PVH_NAME, _PVH_TYPE = b"Xen\0", 18  # xen/interface/elfnote.h: PHYS32_ENTRY


def unpack_bzimage(image: Path, target: Path) -> Path | None:
    """Write the ELF kernel of ``image`` to ``target``; None when there is none that starts by PVH.

    Raises:
        KernelError: the tool for its compression is missing or failed.
    """
    data = image.read_bytes()
    if data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return None
    offset, length = _PAYLOAD.unpack_from(data, _PAYLOAD_AT)
    start = (data[_SETUP_SECTORS] + 1) * _SECTOR + offset
    payload = data[start : start + length]
    for magic, unpack in _FORMATS.items():
        if payload.startswith(magic):
            kernel = unpack(payload)
            break
    else:
        return None
    if not kernel.startswith(_ELF) or not _starts_by_pvh(kernel):
        return None
    target.write_bytes(kernel)
    return target


def _lz4(payload: bytes) -> bytes:
    if shutil.which("lz4") is None:
        raise KernelError("the kernel is packed with lz4, which is missing: apt-get install lz4")
    # The legacy format has no end: the appended size would be taken for a block.
    result = subprocess.run(["lz4", "-dc"], input=payload[:-_SIZE_BYTES], capture_output=True, check=False)
    if result.returncode != 0:
        raise KernelError(f"lz4 cannot unpack the kernel: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


def _zstd(payload: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(payload)


_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x02\x21\x4c\x18": _lz4,
    b"\xfd7zXZ\0": lambda payload: lzma.LZMADecompressor().decompress(payload),
    b"\x1f\x8b": lambda payload: zlib.decompressobj(wbits=31).decompress(payload),
    b"\x28\xb5\x2f\xfd": _zstd,
}


def _starts_by_pvh(kernel: bytes) -> bool:
    at, size, count = _PROGRAM_HEADERS.unpack_from(kernel)
    for number in range(count):
        kind, _, place, _, _, length = _PROGRAM_HEADER.unpack_from(kernel, at + size * number)
        if kind == _PT_NOTE and _has_pvh_note(kernel[place : place + length]):
            return True
    return False


def _has_pvh_note(notes: bytes) -> bool:
    at = 0
    while at + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, at)
        at += _NOTE.size
        if kind == _PVH_TYPE and notes[at : at + name_size] == _PVH_NAME:
            return True
        at += -(-name_size // 4) * 4 + -(-size // 4) * 4
    return False
