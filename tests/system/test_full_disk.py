"""A full disk under a VCH: clear errors, nothing half made, the others unaffected, and a way out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Docker, Host, Vch, footprint, run
from tools import busybox_image

pytestmark = pytest.mark.system


@pytest.fixture
def small(host: Host) -> Iterator[Vch]:
    """A VCH whose whole state lies on a file system of 400 MB."""
    root = host.directory / "state" / "small"
    root.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=400m,mode=711", "none", root)
    made = Vch(host, "small")
    yield made
    made.delete()
    run("umount", root)


@contextlib.contextmanager
def full(vch: Vch) -> Iterator[None]:
    filler = vch.root / "log" / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk(small: Vch, host: Host) -> None:
    docker = small.docker
    docker("load", "--input", busybox(host))
    docker("run", "--detach", "--name", "other", "busybox", "sleep", "1000")
    docker("create", "--name", "to-remove", "busybox", "true")
    docker("volume", "create", "there")
    before = footprint(host, small)
    listed = names(docker)
    with full(small):
        for words in (
            ("create", "--name", "new", "busybox", "true"),
            ("create", "--volume", "/anonymous", "busybox", "true"),
            ("volume", "create", "new"),
            ("network", "create", "new"),
            ("tag", "busybox", "new"),
            ("import", str(two_megabytes(host)), "new"),
            ("start", "to-remove"),
        ):
            refused = docker(*words, check=False)
            assert (refused.returncode != 0, "no space" in refused.stderr.lower()) == (True, True), refused
        assert footprint(host, small) == before
        assert names(docker) == listed
        assert docker.out("inspect", "--format", "{{.State.Status}}", "other") == "running"
        docker("rm", "to-remove")  # the way out
        docker("volume", "rm", "there")
    small.kill("portlayer", "engine")
    assert docker.out("exec", "other", "echo", "alive") == "alive"
    docker("volume", "create", "new")
    docker("rm", "--force", "other")


def names(docker: Docker) -> list[str]:
    commands = (
        ("ps", "--all", "--format", "{{.Names}} {{.State}}"),
        ("volume", "ls"),
        ("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}"),
    )
    return [docker.out(*words) for words in commands]


def busybox(host: Host) -> Path:
    archive = host.directory / "full-busybox.tar"
    archive.write_bytes(busybox_image.archive())
    return archive


def two_megabytes(host: Host) -> Path:
    tree = host.directory / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "file").write_bytes(os.urandom(2 << 20))
    archive = host.directory / "two.tar"
    run("tar", "-C", tree, "-cf", archive, ".")
    return archive
