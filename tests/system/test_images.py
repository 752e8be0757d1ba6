"""Images end to end: a registry, the docker CLI, a real VCH; and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.engine.images.samples import Sample, archive, sample, tar
from tests.engine.registry.server import Answer, Asked, FakeRegistry, digest_of
from tests.system.harness import Docker, Host, Result, Vch

pytestmark = pytest.mark.system

CLONE_NEWNET = 0x40000000


@pytest.fixture
def clean(docker: Docker, vch: Vch) -> Iterator[Docker]:
    """After the test, images and layers are those of before."""
    before = (docker.out("images", "--all", "--quiet", "--no-trunc"), layers(vch))
    yield docker
    assert (docker.out("images", "--all", "--quiet", "--no-trunc"), layers(vch)) == before


def layers(vch: Vch) -> list[str]:
    return sorted(path.name for path in (vch.root / "layers").iterdir())


def busybox(**files: bytes) -> Sample:
    """A tiny image that runs: busybox from the base, one file per layer on top."""
    binary = Path("/bin/busybox").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, data, mode in (("bin/busybox", binary, 0o755), ("etc/passwd", b"root:x:0:0::/:\n", 0o644)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            out.addfile(info, io.BytesIO(data))
        for directory in ("proc", "sys", "dev", "tmp"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            out.addfile(info)
        link = tarfile.TarInfo("bin/cat")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        out.addfile(link)
    return sample(buffer.getvalue(), *(tar(**{name: data}) for name, data in files.items()))


def listening_in(host: Host) -> socket.socket:
    """A listening socket inside the host's network namespace; where it was made is where it stays."""
    made: list[socket.socket] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/run/netns/{host.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert libc.setns(descriptor, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            made.append(socket.create_server(("127.0.0.1", 0)))
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


@pytest.fixture
async def hostile(host: Host) -> AsyncIterator[FakeRegistry]:
    """A registry in the VCH's own network that does as a test tells it."""
    async with FakeRegistry().serving(listening_in(host)) as registry:
        yield registry


async def pulling(docker: Docker, name: str) -> Result:
    """`docker pull` without holding up the registry that runs in this very loop."""
    return await asyncio.to_thread(docker, "pull", name, check=False)


async def test_an_image_from_the_registry_runs(clean: Docker, hostile: FakeRegistry) -> None:
    image = busybox(first=b"one\n", second=b"two\n")
    image.put(hostile, "it", "latest")
    name = f"{hostile.host}/it"
    assert (await pulling(clean, name)).returncode == 0
    shown = clean.json("image", "inspect", name)[0]
    assert shown["RootFS"]["Layers"] == image.diff_ids
    assert shown["RepoDigests"] == [f"{name}@{image.digest}"]
    assert Path(shown["GraphDriver"]["Data"]["Disk"]).exists()
    assert len(clean.out("history", "-q", name).splitlines()) == 3
    out = await asyncio.to_thread(clean.out, "run", "--rm", name, "cat", "/first", "/second")
    assert out == "one\ntwo"
    again = await pulling(clean, name)
    assert f"Status: Image is up to date for {name}:latest" in again.stdout
    clean("rmi", name)


async def test_a_short_name_comes_from_the_mirror(
    clean: Docker, host: Host, registry: str, tmp_path: Path
) -> None:
    load_archive(tmp_path / "it.tar", busybox(it=b"x"), "short:1")
    host.run("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false",
             f"docker-archive:{tmp_path / 'it.tar'}", f"docker://{registry}/library/short:1")  # fmt: skip
    assert clean.out("pull", "--quiet", "short:1") == "docker.io/library/short:1"
    assert clean("pull", "short:2", check=False).stderr.startswith(
        "Error response from daemon: manifest for short:2 not found: manifest unknown"
    )
    clean("tag", "short:1", "another/name:here")
    removed = clean.out("rmi", "short:1", "another/name:here")
    assert "Untagged: short:1" in removed
    assert "Deleted: sha256:" in removed


def load_archive(path: Path, image: Sample, name: str) -> None:
    names = [f"{number}.tar" for number in range(len(image.layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).encode()
    files = [("config.json", image.config), *zip(names, image.layers, strict=True)]
    path.write_bytes(archive([*files, ("manifest.json", manifest)]))


def test_load_import_and_prune(clean: Docker, tmp_path: Path) -> None:
    image = busybox(it=b"loaded\n")
    load_archive(tmp_path / "it.tar", image, "loaded:1")
    assert clean.out("load", "--quiet", "--input", tmp_path / "it.tar") == "Loaded image: loaded:1"
    assert clean.out("run", "--rm", "loaded:1", "cat", "/it") == "loaded"
    (tmp_path / "root.tar").write_bytes(image.layers[0])
    clean("import", "--change", 'CMD ["cat", "/etc/passwd"]', tmp_path / "root.tar", "imported:1")
    assert clean.out("run", "--rm", "imported:1") == "root:x:0:0::/:"
    assert clean.json("image", "inspect", "imported:1")[0]["Comment"] == "Imported from -"
    clean("tag", "imported:1", "loaded:1")  # the loaded image loses its name
    assert clean.out("images", "--quiet", "--no-trunc", "--filter", "dangling=true") == image.id
    assert image.id in clean.out("image", "prune", "--force")
    clean("rmi", "imported:1", "loaded:1")


def test_a_container_keeps_the_layers_of_an_image_that_was_forced_away(clean: Docker, tmp_path: Path) -> None:
    load_archive(tmp_path / "it.tar", busybox(it=b"still here\n"), "gone:1")
    clean("load", "--input", tmp_path / "it.tar")
    clean("create", "--name", "keeper", "gone:1", "cat", "/it")
    assert "must force" in clean("rmi", "gone:1", check=False).stderr
    clean("rmi", "--force", "gone:1")
    assert clean.out("start", "--attach", "keeper") == "still here"
    clean("rm", "keeper")
    clean("image", "prune", "--force")  # sweeps, whether the removal's own sweep was through or not


async def test_a_registry_that_dies_in_a_layer(clean: Docker, hostile: FakeRegistry) -> None:
    image = busybox(big=os.urandom(2_000_000))
    image.put(hostile, "it", "latest")
    blob = digest_of(image.blobs[1])
    cuts = 100
    hostile.rules.append(lambda asked: cut(hostile, asked, blob, 1000) if cuts else None)
    failed = await pulling(clean, f"{hostile.host}/it")
    assert failed.returncode == 1
    assert "Retrying in" in failed.stdout
    cuts = 0
    assert (await pulling(clean, f"{hostile.host}/it")).returncode == 0
    clean("rmi", f"{hostile.host}/it")


def cut(registry: FakeRegistry, asked: Asked, blob: str, size: int) -> Answer | None:
    if blob not in asked.path:
        return None
    answer = registry.part(asked, registry.blobs[blob])
    answer.cut = 0 if "range" in asked.headers else size
    return answer


async def test_a_wrong_digest(clean: Docker, hostile: FakeRegistry, vch: Vch) -> None:
    before = layers(vch)
    image = busybox(it=b"right")
    image.put(hostile, "it", "latest")
    blob = digest_of(image.blobs[1])
    hostile.blobs[blob] = bytes(len(image.blobs[1]))
    failed = await pulling(clean, f"{hostile.host}/it")
    assert f"filesystem layer verification failed for digest {blob}" in failed.stderr
    clean("image", "prune", "--force")
    assert layers(vch) == before


@pytest.mark.parametrize("victims", [("engine",), ("portlayer",), ("engine", "portlayer")], ids="+".join)
async def test_killed_in_the_middle_of_a_pull(
    clean: Docker, vch: Vch, hostile: FakeRegistry, victims: tuple[str, ...]
) -> None:
    """No image, no half layer; and the same pull works afterwards."""
    before = layers(vch)
    image = busybox(big=os.urandom(3_000_000))
    image.put(hostile, "it", "latest")
    blob = digest_of(image.blobs[1])
    arrived, stall = asyncio.Event(), asyncio.Event()

    def wait(asked: Asked) -> Answer | None:
        if blob not in asked.path:
            return None
        arrived.set()
        return Answer(body=image.blobs[1], wait=stall)

    hostile.rules.append(wait)
    client = clean.popen("pull", f"{hostile.host}/it", stdin=subprocess.DEVNULL)
    try:
        await asyncio.wait_for(arrived.wait(), 60)
        await asyncio.to_thread(vch.kill, *victims)
        stall.set()
        await asyncio.to_thread(client.communicate, timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            client.kill()
        client.wait()
    hostile.rules.clear()
    assert client.returncode != 0
    assert f"{hostile.host}/it" not in clean.out("images")
    assert not [name for name in layers(vch) if name.startswith(".new-")]
    clean("image", "prune", "--force")
    assert layers(vch) == before
    assert (await pulling(clean, f"{hostile.host}/it")).returncode == 0
    out = await asyncio.to_thread(clean, "run", "--rm", f"{hostile.host}/it", "cat", "/big", text=False)
    assert digest_of(tar(big=out.stdout)) == image.diff_ids[1]
    clean("rmi", f"{hostile.host}/it")


async def test_a_pull_that_is_interrupted(clean: Docker, vch: Vch, hostile: FakeRegistry) -> None:
    image = busybox(big=os.urandom(500_000))
    image.put(hostile, "it", "latest")
    blob = digest_of(image.blobs[1])
    arrived = asyncio.Event()

    def stall(asked: Asked) -> Answer | None:
        if blob not in asked.path:
            return None
        arrived.set()
        return Answer(body=image.blobs[1], wait=asyncio.Event())

    hostile.rules.append(stall)
    client = clean.popen("pull", f"{hostile.host}/it", stdin=subprocess.DEVNULL)
    await asyncio.wait_for(arrived.wait(), 60)
    client.terminate()
    await asyncio.to_thread(client.communicate, timeout=60)
    hostile.rules.clear()
    assert (await pulling(clean, f"{hostile.host}/it")).returncode == 0
    clean("rmi", f"{hostile.host}/it")
