"""What it costs to have a container: memory of an idle VM, of the tether in it, and of the daemons.

A VM's memory is the guest's own use (all its kernel does not call free) and what
the host pays beyond it: QEMU with its translated code, and guest pages that were
used once and are free again. The budget is on the latter.
"""

from __future__ import annotations

import re
from pathlib import Path

import grpc

from bench.series import Report
from portlayer import portlayer_pb2, portlayer_pb2_grpc
from tests.system.harness import Vch

__all__ = ["measure_memory", "rss"]

VMS = 4


def measure_memory(report: Report, vch: Vch) -> None:
    names = [f"bench-idle-{number}" for number in range(VMS)]
    for name in names:
        vch.docker("run", "--detach", "--name", name, "busybox", "sleep", "1000")
    with grpc.insecure_channel(f"unix:{vch.root_run / 'portlayer.sock'}") as channel:
        containers = portlayer_pb2_grpc.ContainersStub(channel)
        for name in names:
            process = vch.qemu(name)
            whole, own = _pss(process), _ram(process) - _guest_free(vch, name)
            report.record("mooring", "memory of an idle container VM (PSS)", whole / 1e6, "MB")
            report.record("mooring", "  of it the guest's own use", own / 1e6, "MB")
            report.record("mooring", "  of it beyond the guest's own use", (whole - own) / 1e6, "MB")
            report.record("mooring", "  of that, private to the VM", (_private(process) - own) / 1e6, "MB")
            container = vch.docker.out("inspect", "--format", "{{.Id}}", name)
            facts = containers.Diagnostics(portlayer_pb2.ContainerRef(id=container)).facts
            report.record("mooring", "RSS of the tether", int(facts["rss"]) / 1e6, "MB")
            report.record("mooring", "start of Python to tether ready", int(facts["import_ns"]) / 1e9, "s")
    for module in ("portlayer", "engine"):
        report.record("mooring", f"RSS of {module}", rss(vch.process(module)) / 1e6, "MB")
    vch.docker("rm", "--force", *names)


def _pss(process: int) -> int:
    return _kilobytes(Path(f"/proc/{process}/smaps_rollup"), "Pss")


def _private(process: int) -> int:
    """Without the pages of QEMU, kernel and initramfs that all VMs share."""
    rollup = Path(f"/proc/{process}/smaps_rollup")
    return _kilobytes(rollup, "Private_Dirty") + _kilobytes(rollup, "Private_Clean")


def _ram(process: int) -> int:
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"-m") + 1].removesuffix(b"M")) << 20


def _guest_free(vch: Vch, name: str) -> int:
    free = re.search(
        r"^MemFree:\s+(\d+) kB", vch.docker.out("exec", name, "cat", "/proc/meminfo"), re.MULTILINE
    )
    assert free is not None
    return int(free[1]) * 1024


def rss(process: int) -> int:
    return _kilobytes(Path(f"/proc/{process}/status"), "VmRSS")


def _kilobytes(path: Path, key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    assert match is not None, f"{path} has no {key}"
    return int(match[1]) * 1024
