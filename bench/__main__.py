"""make bench: everything in one run, medians and ratios on stdout, samples in build/bench.json."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.crowd import measure_crowd, measure_crowded_daemons
from bench.dockerd import dockerd
from bench.floor import measure_floor
from bench.memory import measure_memory
from bench.ready import measure_ready
from bench.series import Report
from bench.workloads import measure, publish_big_image
from tests.system.harness import GUEST, ROOT, Vch, registry_in, temporary_host

MACHINE = ["-accel", "tcg", "-cpu", "max", "-M", "q35,sata=off,smbus=off,i8042=off,vmport=off,smm=off"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-dockerd", action="store_true", help="leave the other side out")
    options = parser.parse_args()
    report = Report()
    busybox = subprocess.run(
        [sys.executable, ROOT / "tools/busybox_image.py"], capture_output=True, check=True
    ).stdout
    with (
        tempfile.TemporaryDirectory(prefix="mooring-bench-") as scratch,
        temporary_host(f"mb{os.getpid()}", Path(scratch)) as host,
    ):
        host.directory.chmod(0o711)
        archive = host.directory / "busybox.tar"
        archive.write_bytes(busybox)
        registry = registry_in(host)
        publish_big_image(host, registry)
        arguments = "console=ttyS0 quiet reboot=t panic=-1 random.trust_cpu=on"
        measure_floor(
            report.series("mooring", "bare QEMU boot to /init (the floor)"),
            kernel=GUEST / "kernel",
            machine=MACHINE,
            arguments=arguments,
            times=options.runs,
        )
        measure_ready(
            report.series("mooring", "hypervisor start to tether ready"),
            guest=GUEST,
            memory_mib=512,  # as the floor's
            times=options.runs,
        )
        vch = Vch(host, "bench", "--insecure-registry", registry)
        try:
            vch.docker("load", "--input", archive)
            measure(report, "mooring", vch.docker, registry, runs=options.runs)
            measure_memory(report, vch)
            measure_crowded_daemons(report, vch)
        finally:
            vch.delete()
        if not options.no_dockerd:
            with dockerd(host, registry) as docker:
                docker("load", "--input", archive)
                measure(report, "dockerd", docker, registry, runs=options.runs)
                measure_crowd(report, "dockerd", docker)
    print(report.text("mooring", "dockerd"))
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/bench.json").write_text(json.dumps(report.document(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
