"""Control-plane cost of the vSphere back end, on the lab without guests: python -m bench.vsphere.

Wall time includes the simulator, which shares the machine; "own" is the CPU time of
our process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from bench.series import Report
from portlayer.hypervisor.base import VmConfig
from portlayer.hypervisor.vsphere import VsphereHypervisor
from tests.lab.process import LabProcess
from tests.vsphere.place import vch_in

SUBJECT = "vsphere"
AT_ONCE = 50


def config(number: int) -> VmConfig:
    """About what a container has: its specification, and what the guest boots with."""
    spec = secrets.token_bytes(2048)
    extra = {"container": spec}
    return VmConfig(
        id=secrets.token_hex(32),
        name=f"c{number}",
        memory_mib=256,
        boot_config=spec,
        extra=extra,
    )


async def timed(report: Report, name: str, step: Awaitable[object]) -> None:
    wall, own = time.perf_counter(), time.process_time()
    await step
    report.record(SUBJECT, f"{name}: wall", (time.perf_counter() - wall) * 1000, "ms")
    report.record(SUBJECT, f"{name}: own", (time.process_time() - own) * 1000, "ms")


async def measure(report: Report, lab: LabProcess, directory: Path, *, runs: int, vms: int) -> None:
    place = vch_in(lab, directory)
    hypervisor = VsphereHypervisor(place.config)
    await hypervisor.open()
    for number in range(runs):
        made = config(number)
        await timed(report, "create", hypervisor.create(made))
        await timed(report, "start", hypervisor.start(made.id))
        await timed(report, "stop", hypervisor.power_off(made.id))
        await timed(report, "remove", hypervisor.delete(made.id))
    crowd = asyncio.gather(*(hypervisor.create(config(n)) for n in range(AT_ONCE)))
    await timed(report, f"{AT_ONCE} creates at once", crowd)
    for first in range(AT_ONCE, vms, AT_ONCE):
        await asyncio.gather(*(hypervisor.create(config(n)) for n in range(first, first + AT_ONCE)))
    count = len(await hypervisor.list())
    lab.control("GET", "calls?reset=1")
    for _ in range(runs):
        await timed(report, f"list of {count}", hypervisor.list())
    report.record(SUBJECT, f"calls for {runs} lists", sum(lab.control("GET", "calls").values()), "calls")
    await hypervisor.close()
    again = VsphereHypervisor(place.config)
    await timed(report, f"open with {count} (first sync)", again.open())
    await again.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.vsphere", description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--vms", type=int, default=1000)
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mooring-bench-") as scratch:
        lab = LabProcess(Path(scratch), "-qemu=false")
        try:
            asyncio.run(measure(report, lab, Path(scratch), runs=options.runs, vms=options.vms))
        finally:
            lab.close()
    print(report.text(SUBJECT, ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
