"""A daemon on a host of its own, for the script: Debian's dockerd (20.10, API 1.41) or Mooring.

Both are spoken to in dockerd's version of the API: so each difference is one of the engines, not of the
API's age.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.dockerd import dockerd
from tests.sidebyside.transcript import API, Entry, record
from tests.system.harness import ROOT, Docker, Host, Vch, temporary_host

__all__ = ["run_script"]


@contextlib.contextmanager
def mooring(host: Host) -> Iterator[Docker]:
    vch = Vch(host, "side")
    try:
        yield vch.docker
    finally:
        vch.delete()


def run_script(which: str) -> list[Entry]:
    with (
        tempfile.TemporaryDirectory(prefix="mooring-side-", dir="/var/tmp") as scratch,
        temporary_host(f"ms{os.getpid()}", Path(scratch)) as host,
    ):
        host.directory.chmod(0o711)
        archive = host.directory / "busybox.tar"
        image = subprocess.run(
            [sys.executable, ROOT / "tools/busybox_image.py"], capture_output=True, check=True
        )
        archive.write_bytes(image.stdout)
        with dockerd(host, "127.0.0.1:5000") if which == "dockerd" else mooring(host) as docker:
            docker.environment["DOCKER_API_VERSION"] = API
            docker("load", "--input", archive)
            entries = []
            for entry in record(docker, archive, host.directory / "files"):
                entries.append(entry)
                print(f"{len(entries)} {entry.code} {entry.command}", file=sys.stderr)
            return entries
