"""push, save and load against a real registry: digests and bytes are those of the original."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.engine.images.samples import Sample, archive, sample, tar
from tests.system.harness import Docker, Host

pytestmark = pytest.mark.system


def layers() -> list[bytes]:
    """Archives that only their own writer would make again: GNU long names, other orders, replaced files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, data in (("z/" + "n" * 120, os.urandom(5000)), ("a", b"a" * 4000), ("a", os.urandom(3000))):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.uname = len(data), 7, "somebody"
            out.addfile(info, io.BytesIO(data))
    return [buffer.getvalue() + bytes(512), tar(b=os.urandom(100_000)), bytes(10240)]


def in_registry(host: Host, registry: str, image: Sample, name: str, tmp_path: Path) -> None:
    names = [f"{number}.tar" for number in range(len(image.layers))]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": names}]).encode()
    files = [("c.json", image.config), *zip(names, image.layers, strict=True), ("manifest.json", manifest)]
    (tmp_path / "in.tar").write_bytes(archive(files))
    copy = ("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false")
    host.run(*copy, f"docker-archive:{tmp_path / 'in.tar'}", f"docker://{registry}/{name}")


def digest(host: Host, registry: str, name: str) -> str:
    return host.run(
        "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{registry}/{name}"
    ).stdout.strip()


def test_a_pull_and_a_push_move_nothing_and_a_save_is_the_original(
    docker: Docker, host: Host, registry: str, tmp_path: Path
) -> None:
    image = sample(*layers())
    in_registry(host, registry, image, "push/it:1", tmp_path)
    name = f"{registry}/push/it:1"
    before = digest(host, registry, "push/it:1")
    docker("pull", name)
    again = docker.out("push", name)
    assert again.count("Layer already exists") == 3
    assert f"digest: {before}" in again
    other = f"{registry}/push/deep/other:2"
    docker("tag", name, other)
    pushed = docker.out("push", other)
    assert pushed.count("Mounted from push/it") == 3
    assert digest(host, registry, "push/deep/other:2") == before

    docker("save", "--output", tmp_path / "saved.tar", name)
    with tarfile.open(tmp_path / "saved.tar") as saved:
        found = [saved.extractfile(f"blobs/sha256/{i[7:]}").read() for i in image.diff_ids]  # type: ignore[union-attr]
    assert found == image.layers
    docker("rmi", name, other)
    docker("load", "--input", tmp_path / "saved.tar")
    docker("save", "--output", tmp_path / "again.tar", name)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "saved.tar").read_bytes()
    # nothing is known of the loaded image's blobs: they are compressed anew, and the diff IDs stay
    fresh = f"{registry}/fresh:1"
    docker("tag", name, fresh)
    assert docker.out("push", fresh).count("Pushed") == 3
    docker("rmi", name, fresh)
    docker("pull", fresh)
    assert docker.json("image", "inspect", fresh)[0]["RootFS"]["Layers"] == image.diff_ids
    docker("rmi", fresh)
    assert "reference does not exist" in docker("save", name, check=False).stderr
