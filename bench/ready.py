"""Hypervisor start → tether ready: the port layer's own command line, and nothing of the port layer."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

from bench.series import Series
from portlayer.hypervisor.base import VmConfig
from portlayer.hypervisor.qemu.commandline import Boot, LaunchFiles, build
from portlayer.hypervisor.qemu.devices import Profile
from portlayer.hypervisor.qemu.tsc import measure_khz

__all__ = ["measure_ready"]

_MARKER = b"tether ready"


def measure_ready(series: Series, *, guest: Path, memory_mib: int, times: int) -> None:
    """Sample exec of QEMU → the tether's word on the console. The VM has neither disk nor NIC."""
    boot = Boot(
        binary="qemu-system-x86_64",
        profile=Profile.FAST,
        accelerator="tcg",
        kernel=guest / "kernel",
        initrd=guest / "initrd",
        tsc_khz=measure_khz(),
    )
    config = VmConfig(id="b" * 64, name="bench", vcpus=1, memory_mib=memory_mib)
    for _ in range(times):
        with (
            tempfile.TemporaryDirectory(prefix="mooring-bench-") as scratch,
            socket.socket(socket.AF_UNIX) as monitor,
            socket.socket(socket.AF_UNIX) as channel,
        ):
            directory = Path(scratch)
            monitor.bind(str(directory / "monitor"))
            channel.bind(str(directory / "channel"))
            monitor.listen()
            channel.listen()
            (directory / "journal").touch()
            console = directory / "console"
            os.mkfifo(console)
            files = LaunchFiles(
                monitor=monitor.fileno(),
                channel=channel.fileno(),
                boot_config=None,
                journal=directory / "journal",
                console=console,
            )
            command = build(boot, config, files)
            with series.timed():
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[monitor.fileno(), channel.fileno()]
                )
                with console.open("rb", buffering=0) as output:
                    seen = b""
                    while _MARKER not in seen:
                        piece = output.read(4096)
                        assert piece, f"the tether never became ready: {seen.decode(errors='replace')}"
                        seen += piece
            process.kill()
            process.wait()
