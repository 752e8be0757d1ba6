"""What it costs to have a container: memory of an idle VM, of the tether in it, and of the daemons."""

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
            report.record("mooring", "memory of an idle container VM (PSS)", _pss(vch.qemu(name)) / 1e6, "MB")
            container = vch.docker.out("inspect", "--format", "{{.Id}}", name)
            facts = containers.Diagnostics(portlayer_pb2.ContainerRef(id=container)).facts
            report.record("mooring", "RSS of the tether", int(facts["rss"]) / 1e6, "MB")
            report.record("mooring", "start of Python to tether ready", int(facts["import_ns"]) / 1e9, "s")
    for module in ("portlayer", "engine"):
        report.record("mooring", f"RSS of {module}", rss(vch.process(module)) / 1e6, "MB")
    vch.docker("rm", "--force", *names)


def _pss(process: int) -> int:
    return _kilobytes(Path(f"/proc/{process}/smaps_rollup"), "Pss")


def rss(process: int) -> int:
    return _kilobytes(Path(f"/proc/{process}/status"), "VmRSS")


def _kilobytes(path: Path, key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    assert match is not None, f"{path} has no {key}"
    return int(match[1]) * 1024
