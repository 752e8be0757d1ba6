"""The kernel inside a bzImage, packed as kernels are."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from imagebuild.kernels.bzimage import unpack_bzimage


def elf(*notes: tuple[bytes, int]) -> bytes:
    """The head of a 64-bit kernel with one segment of ``notes``."""
    content = b"".join(struct.pack("<III", len(name), 4, kind) + name + bytes(4) for name, kind in notes)
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q14xHH", 64, 56, 1) + bytes(6)
    segment = struct.pack("<IIQQQQ", 4, 4, 120, 0, 0, len(content)) + bytes(16)
    return header + segment + content


PVH = elf((b"GNU\0", 3), (b"Xen\0", 18))


def bzimage(path: Path, payload: bytes) -> Path:
    head = bytearray(2 * 512)
    head[0x1F1] = 1  # setup sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    path.write_bytes(bytes(head) + bytes(16) + payload)
    return path


def packed(content: bytes) -> dict[str, bytes]:
    size = struct.pack("<I", len(content))
    return {"gzip": gzip.compress(content) + size, "xz": lzma.compress(content) + size}


@pytest.mark.parametrize("form", ["gzip", "xz"])
def test_the_kernel_comes_out_as_it_went_in(tmp_path: Path, form: str) -> None:
    image = bzimage(tmp_path / "bz", packed(PVH)[form])
    unpacked = unpack_bzimage(image, tmp_path / "vmlinux")
    assert unpacked is not None
    assert unpacked.read_bytes() == PVH


@pytest.mark.skipif(shutil.which("lz4") is None, reason="lz4 is not installed")
def test_lz4_in_the_kernels_own_format(tmp_path: Path) -> None:
    legacy = subprocess.run(["lz4", "-lc"], input=PVH, capture_output=True, check=True).stdout
    image = bzimage(tmp_path / "bz", legacy + struct.pack("<I", len(PVH)))
    unpacked = unpack_bzimage(image, tmp_path / "vmlinux")
    assert unpacked is not None
    assert unpacked.read_bytes() == PVH


def test_what_cannot_be_started_directly_is_left_packed(tmp_path: Path) -> None:
    without_entry = packed(elf((b"Xen\0", 17), (b"GNU\0", 18)))["gzip"]
    for payload in (without_entry, gzip.compress(b"no ELF file"), b"no known packing"):
        assert unpack_bzimage(bzimage(tmp_path / "bz", payload), tmp_path / "vmlinux") is None
    (tmp_path / "other").write_bytes(bytes(4096))
    assert unpack_bzimage(tmp_path / "other", tmp_path / "vmlinux") is None
    assert not (tmp_path / "vmlinux").exists()
