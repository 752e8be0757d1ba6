"""The floor: a bare QEMU boot of the same kernel to /init, and nothing else."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from bench.series import Series
from imagebuild.cpio import CpioWriter, Node

__all__ = ["measure_floor"]

_INIT = b"#!/bin/busybox sh\necho READY >/dev/ttyS0\n/bin/busybox poweroff -f\n"


def measure_floor(series: Series, *, kernel: Path, machine: list[str], arguments: str, times: int) -> None:
    """Sample exec of QEMU → the marker that /init writes.

    Args:
        machine: QEMU's arguments for machine type, accelerator and CPU.
        arguments: the kernel's command line.
    """
    with tempfile.TemporaryDirectory() as directory:
        initrd = Path(directory) / "initrd"
        with initrd.open("wb") as output:
            writer = CpioWriter(output)
            for name in ("bin", "dev"):
                writer.add(Node(name=name, mode=0o040755))
            writer.add(Node(name="dev/console", mode=0o020600, rdev=(5, 1)))
            writer.add(Node(name="dev/ttyS0", mode=0o020600, rdev=(4, 64)))
            writer.add(Node(name="bin/busybox", mode=0o100755, data=Path("/bin/busybox").read_bytes()))
            writer.add(Node(name="init", mode=0o100755, data=_INIT))
            writer.close()
        command = ["qemu-system-x86_64", *machine, "-m", "512", "-nodefaults", "-no-user-config"]
        command += ["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel)]
        command += ["-initrd", str(initrd), "-append", arguments]
        for _ in range(times):
            with series.timed():
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
                assert process.stdout is not None
                while b"READY" not in (line := process.stdout.readline()):
                    assert line, "the bare kernel never reached /init"
            process.kill()
            process.wait()
            process.stdout.close()
