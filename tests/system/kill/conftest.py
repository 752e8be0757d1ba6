"""One world for the matrix: images, networks, a stopped container, and one that runs and must never notice."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.system.harness import ROOT, Host, eventually
from tests.system.kill.operations import create
from tests.system.kill.world import World


@pytest.fixture(scope="module")
def world(host: Host, registry: str) -> Iterator[World]:
    made = World(host, registry)
    made.start("portlayer", "engine")
    made.wait_ready()
    busybox = subprocess.run(
        [sys.executable, ROOT / "tools/busybox_image.py"], capture_output=True, check=True
    ).stdout
    assert not any("error" in line for line in made.client.load_image(busybox))
    archive = host.directory / "two-layers.tar"
    archive.write_bytes(two_layers())
    host.run("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{archive}",
             f"docker://{registry}/library/two-layers:latest")  # fmt: skip
    for name in ("base", "other"):
        made.client.create_network(name)
    made.client.create_volume("named")  # one that a container brings stays without it, as in Docker
    create(made, "stopped")
    made.client.start("stopped")  # once: a container that has run never looks new again
    made.client.kill("stopped")
    count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
    client = made.client
    client.create_container(
        "busybox", ["sh", "-c", count], name="bystander", ports=[80],
        host_config=client.create_host_config(port_bindings={80: 8099}),
        networking_config=client.create_networking_config({"base": client.create_endpoint_config()}),
    )  # fmt: skip
    client.start("bystander")
    eventually(lambda: client.logs("bystander"), "it counts")
    yield made
    made.close()


def two_layers() -> bytes:
    """A docker-archive of an image with two layers of its own."""
    layers = [_tar({f"file-{number}": bytes([number]) * 100_000}) for number in range(2)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
    ).encode()
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["two-layers:latest"], "Layers": names}]
    members = dict(zip(names, layers, strict=True))
    return _tar({**members, "config.json": config, "manifest.json": json.dumps(manifest).encode()})


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
