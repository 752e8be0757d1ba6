"""The probe's initramfs; that it boots is a system test."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from portlayer.hypervisor.qemu.probe import MARKER, initramfs


def test_any_cpio_reads_it(tmp_path: Path) -> None:
    listing = subprocess.run(["cpio", "-itv"], input=initramfs(), capture_output=True, check=True).stdout
    modes = {line.split()[-1]: line.split()[0] for line in listing.decode().splitlines()}
    assert modes == {"dev": "drwxr-xr-x", "dev/console": "crw-------", "init": "-rwxr-xr-x"}
    subprocess.run(["cpio", "-i", "--quiet", "init"], input=initramfs(), check=True, cwd=tmp_path)
    program = (tmp_path / "init").read_bytes()
    assert program.startswith(b"\x7fELF\x02\x01\x01")
    assert program.endswith(MARKER)
    (entry,) = struct.unpack_from("<Q", program, 24)
    assert entry == 0x400000 + 64 + 56


def test_its_program_says_the_marker(tmp_path: Path) -> None:
    """Natively: the reboot is refused to whoever is not root of the machine, and the jump waits."""
    subprocess.run(["cpio", "-i", "--quiet", "init"], input=initramfs(), check=True, cwd=tmp_path)
    command = ["unshare", "--pid", "--fork", "--kill-child", "setpriv", "--bounding-set", "-sys_boot", "--"]
    with subprocess.Popen([*command, tmp_path / "init"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == MARKER
        process.kill()
