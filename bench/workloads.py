"""The commands that are timed, the same for both engines."""

from __future__ import annotations

import concurrent.futures
import datetime
import hashlib
import io
import json
import os
import random
import tarfile
import uuid
from pathlib import Path

from bench.series import Report
from tests.system.harness import Docker, Host, run

__all__ = ["HUNDRED_MB", "measure", "publish_big_image"]

HUNDRED_MB = 100 << 20


def measure(report: Report, subject: str, docker: Docker, registry: str, *, runs: int) -> None:
    """All series of one engine; leaves nothing behind."""
    _life_cycle(report, subject, docker, runs)
    _logs(report, subject, docker)
    _copy(report, subject, docker)
    _pull(report, subject, docker, registry)
    for count in (10, 20):
        _concurrent(report, subject, docker, count)


def _life_cycle(report: Report, subject: str, docker: Docker, runs: int) -> None:
    series = report.series
    series(subject, "docker run --rm busybox true").repeat(
        runs, lambda: docker("run", "--rm", "busybox", "true")
    )
    names = [f"bench-{uuid.uuid4().hex[:8]}" for _ in range(runs)]
    sleep = ("--stop-signal", "KILL", "busybox", "sleep", "1000")
    for name in names:
        with series(subject, "docker create").timed():
            docker("create", "--name", name, *sleep)
        with series(subject, "docker start").timed():
            docker("start", name)
        for _ in range(3):
            with series(subject, "docker exec true").timed():
                docker("exec", name, "true")
        with series(subject, "docker stop").timed():
            docker("stop", name)
        with series(subject, "docker rm").timed():
            docker("rm", name)
    docker("run", "--detach", "--name", names[0], *sleep)
    series(subject, "docker ps").repeat(runs, lambda: docker("ps"))
    docker("rm", "--force", names[0])


def _logs(report: Report, subject: str, docker: Docker) -> None:
    # busybox' head copies byte by byte: emulated, this program is slower than any log.
    line = "0123456789abcdef" * 6
    command = f"yes '{line}' | head -c {HUNDRED_MB}"
    with report.series(subject, "write a log of 100 MB (yes | head)").timed():
        docker("run", "--detach", "--name", "bench-logs", "busybox", "sh", "-c", command)
        docker("wait", "bench-logs")
    docker("rm", "bench-logs")
    # The log itself: 1 MiB of lines, made once, and copied by the kernel as fast as it is taken.
    again = " ".join(["/tmp/lines"] * 100)
    command = f"yes {line[:63]} | head -n 16384 > /tmp/lines; cat {again}"
    docker("run", "--detach", "--name", "bench-logs", "busybox", "sh", "-c", command)
    docker("wait", "bench-logs")
    began, ended = (
        datetime.datetime.fromisoformat(
            docker.out("inspect", "--format", f"{{{{.State.{moment}}}}}", "bench-logs")
        )
        for moment in ("StartedAt", "FinishedAt")
    )
    rate = HUNDRED_MB / 1e6 / (ended - began).total_seconds()
    report.record(subject, "log throughput (cat)", rate, "MB/s")
    with report.series(subject, "docker logs of 100 MB").timed():
        size = len(docker("logs", "bench-logs").stdout)
    assert size == HUNDRED_MB, f"{subject}: {size} bytes of log"
    docker("rm", "bench-logs")


def _copy(report: Report, subject: str, docker: Docker) -> None:
    source = docker.config / "big"
    source.write_bytes(os.urandom(HUNDRED_MB))
    docker("run", "--detach", "--name", "bench-cp", "busybox", "sleep", "1000")
    with report.series(subject, "docker cp of 100 MB in").timed():
        docker("cp", source, "bench-cp:/big")
    with report.series(subject, "docker cp of 100 MB out").timed():
        docker("cp", "bench-cp:/big", docker.config / "back")
    assert (docker.config / "back").read_bytes() == source.read_bytes()
    docker("rm", "--force", "bench-cp")


def _pull(report: Report, subject: str, docker: Docker, registry: str) -> None:
    image = f"{registry}/bench/big"
    for _ in range(3):
        with report.series(subject, "pull of 100 MB, three layers").timed():
            docker("pull", image)
        docker("rmi", image)


def _concurrent(report: Report, subject: str, docker: Docker, count: int) -> None:
    names = [f"bench-many-{number}" for number in range(count)]
    for name in names:
        docker("create", "--name", name, "busybox", "sleep", "1000")
    series = report.series(subject, f"{count} starts at once")
    with concurrent.futures.ThreadPoolExecutor(count) as pool, series.timed():
        list(pool.map(lambda name: docker("start", name), names))
    docker("rm", "--force", *names)


def publish_big_image(host: Host, registry: str) -> None:
    """Push ``bench/big``: three gzip layers, 1,000 files each, 99 MiB that compress little."""
    oci = host.directory / "big-image"
    blobs = oci / "blobs/sha256"
    blobs.mkdir(parents=True)
    generator = random.Random(1)
    layers, diff_ids = [], []
    for number in range(3):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for index in range(1000):
                member = tarfile.TarInfo(f"data{number}/{index:04}")
                member.size = 33 << 10
                tar.addfile(member, io.BytesIO(generator.randbytes(member.size)))
        diff_ids.append(f"sha256:{hashlib.sha256(buffer.getvalue()).hexdigest()}")
        path = oci / "layer"
        path.write_bytes(buffer.getvalue())
        run("gzip", "-n", "-1", "--force", path)
        layers.append({"mediaType": f"{_OCI}.layer.v1.tar+gzip", **_blob(oci / "layer.gz", blobs)})
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {"mediaType": f"{_OCI}.config.v1+json", **_json_blob(config, blobs)},
        "layers": layers,
    }
    entry = {"mediaType": manifest["mediaType"], **_json_blob(manifest, blobs)}
    (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (oci / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    copy = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"]
    host.run(*copy, f"oci:{oci}", f"docker://{registry}/bench/big:latest")


_OCI = "application/vnd.oci.image"


def _json_blob(document: object, blobs: Path) -> dict[str, object]:
    path = blobs / ".document"
    path.write_text(json.dumps(document))
    return _blob(path, blobs)


def _blob(path: Path, blobs: Path) -> dict[str, object]:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path.rename(blobs / digest)
    return {"digest": f"sha256:{digest}", "size": len(data)}
