"""Record the script's transcript: ``python -m tests.sidebyside dockerd`` or ``mooring``.

dockerd is Debian's (20.10, API 1.41), unpacked by bench/dockerd.py. Both are spoken to in its version of the
API: so each difference is one of the engines, not of the API's age.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.dockerd import dockerd
from tests.sidebyside.transcript import API, PLACE, record
from tests.system.harness import ROOT, Docker, Host, Vch, temporary_host


@contextlib.contextmanager
def mooring(host: Host) -> Iterator[Docker]:
    vch = Vch(host, "side")
    try:
        yield vch.docker
    finally:
        vch.delete()


def main() -> int:
    which = sys.argv[1]
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
                entries.append(entry.as_json())
                print(f"{len(entries)} {entry.code} {entry.command}", file=sys.stderr)
    (PLACE / f"{which}.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    return 0


raise SystemExit(main())
