"""bootstrap.iso: isolinux, the kernel and the initramfs, for BIOS machines with a CD-ROM.

Reproducible: fixed dates, fixed serial numbers, sorted files (xorriso honours
SOURCE_DATE_EPOCH; the volume UUID is set by us).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["KERNEL_ARGUMENTS", "write_iso"]

ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")  # Debian package isolinux
LDLINUX = Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")  # Debian package syslinux-common

# console: the first serial port, kept to a file by the hypervisor.
# trust_cpu: without it Python waits 2.6 s for entropy before main.
# notests: a distribution's kernel would test each of its ciphers first.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet reboot=t panic=-1 random.trust_cpu=on cryptomgr.notests dummy.numdummies=0"
)

_CONFIG = """\
DEFAULT mooring
PROMPT 0
TIMEOUT 1
LABEL mooring
  KERNEL /boot/kernel
  INITRD /boot/initrd
  APPEND {arguments}
"""


def write_iso(target: Path, *, kernel: Path, initrd: Path, arguments: str = KERNEL_ARGUMENTS) -> None:
    """Write the image.

    Raises:
        RuntimeError: xorriso failed; its words are in the message.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        root = Path(directory)
        (root / "isolinux").mkdir()
        (root / "boot").mkdir()
        shutil.copyfile(ISOLINUX, root / "isolinux/isolinux.bin")
        shutil.copyfile(LDLINUX, root / "isolinux/ldlinux.c32")
        (root / "isolinux/isolinux.cfg").write_text(_CONFIG.format(arguments=arguments))
        shutil.copyfile(kernel, root / "boot/kernel")
        shutil.copyfile(initrd, root / "boot/initrd")
        for path in [root, *root.rglob("*")]:
            os.utime(path, (0, 0))
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "MOORING", "-o", str(target)]
        command += ["--modification-date=1970010100000000", "--set_all_file_dates", "set_to_mtime"]
        command += ["-uid", "0", "-gid", "0"]
        command += ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot"]
        command += ["-boot-load-size", "4", "-boot-info-table", str(root)]
        result = subprocess.run(
            command,
            env={"SOURCE_DATE_EPOCH": "0", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        raise RuntimeError(f"xorriso failed: {result.stderr.strip()[-2000:]}")
