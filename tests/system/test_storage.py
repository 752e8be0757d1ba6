"""Disks: the chain below a container, volumes, docker cp, docker diff."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.system.harness import Docker, Vch, run

pytestmark = pytest.mark.system


def chain(vch: Vch, container: str) -> list[str]:
    disk = vch.root / "containers" / container / "disk.vmdk"
    info = run("qemu-img", "info", "--backing-chain", "--output=json", "--force-share", disk)
    return [os.path.normpath(link["filename"]) for link in json.loads(info.stdout)]


def test_two_containers_stand_on_one_layer_chain(docker: Docker, vch: Vch) -> None:
    ids = [docker.out("create", "busybox", "true") for _ in range(2)]
    chains = [chain(vch, container) for container in ids]
    assert all(len(links) >= 2 for links in chains)
    assert chains[0][0] != chains[1][0]
    assert chains[0][1:] == chains[1][1:]
    docker("rm", *ids)


def test_what_a_container_writes_is_its_own(docker: Docker) -> None:
    docker("run", "--name", "writer", "busybox", "sh", "-c", "echo mine > /file; rm -f /bin/wget")
    assert docker("run", "--rm", "busybox", "cat", "/file", check=False).returncode == 1
    diff = set(docker.out("diff", "writer").splitlines())
    assert {"A /file", "D /bin/wget", "C /bin"} <= diff
    docker("start", "--attach", "writer")
    docker("rm", "writer")


def test_cp_in_and_out_running_and_stopped(docker: Docker, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub/data").write_bytes(os.urandom(300_000))
    (source / "link").symlink_to("sub/data")
    (source / "sub/data").chmod(0o640)
    docker("run", "--detach", "--name", "cp", "busybox", "sleep", "1000")
    for state in ("running", "stopped"):
        docker("cp", source, f"cp:/{state}")
        docker("cp", f"cp:/{state}", tmp_path / f"back-{state}")
        back = tmp_path / f"back-{state}"
        assert (back / "sub/data").read_bytes() == (source / "sub/data").read_bytes()
        assert (back / "sub/data").stat().st_mode & 0o777 == 0o640
        assert (back / "link").is_symlink()
        missing = docker("cp", "cp:/absent", tmp_path, check=False)
        assert "Could not find the file /absent in container cp" in missing.stderr
        if state == "running":
            docker("kill", "cp")
    docker("start", "cp")
    seen = docker.out("exec", "cp", "sha256sum", "/running/sub/data", "/stopped/sub/data").split()
    assert seen[0] == seen[2] == hashlib.sha256((source / "sub/data").read_bytes()).hexdigest()
    docker("rm", "--force", "cp")


def test_cp_from_stdin_and_to_stdout(docker: Docker) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("piped")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    docker("create", "--name", "pipe", "busybox", "true")
    docker("cp", "-", "pipe:/tmp", input=buffer.getvalue(), text=False)
    out = docker("cp", "pipe:/tmp/piped", "-", text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:  # type: ignore[arg-type]
        extracted = tar.extractfile("piped")
        assert extracted is not None
        assert extracted.read() == b"hello"
    docker("rm", "pipe")


def test_a_symlink_in_the_container_cannot_lead_cp_outside(docker: Docker, tmp_path: Path) -> None:
    docker("run", "--name", "evil", "busybox", "ln", "-s", "/../../../../etc", "/exit")
    docker("cp", "evil:/exit/passwd", tmp_path / "passwd")
    assert "root:x:0:0:root:/root:/bin/sh" in (tmp_path / "passwd").read_text()  # the container's own
    assert (tmp_path / "passwd").read_text() != Path("/etc/passwd").read_text()
    docker("rm", "evil")


def test_a_volume_outlives_its_containers_and_takes_the_images_content(docker: Docker) -> None:
    docker("volume", "create", "--label", "kind=test", "vol")
    script = "ls /etc/passwd >/dev/null && cat /etc/group | wc -l; echo kept > /etc/note"
    docker("run", "--rm", "--volume", "vol:/etc", "busybox", "sh", "-c", script)
    assert docker.out("run", "--rm", "--volume", "vol:/mnt", "busybox", "cat", "/mnt/note") == "kept"
    assert docker.out("run", "--rm", "--volume", "vol:/mnt:ro", "busybox", "sh", "-c",
                      "touch /mnt/x 2>&1 | grep -c Read-only; ls -A /mnt | grep -c lost", check=False).split() == ["1", "0"]  # fmt: skip
    assert docker.out("volume", "ls", "-q", "--filter", "label=kind=test") == "vol"
    docker("create", "--name", "holder", "--volume", "vol:/v", "busybox", "true")
    refused = docker("volume", "rm", "vol", check=False)
    assert "volume is in use" in refused.stderr
    docker("rm", "holder")
    docker("volume", "rm", "vol")


def test_a_volumes_capacity_is_a_limit(docker: Docker) -> None:
    docker("volume", "create", "--opt", "Capacity=32MB", "small")
    result = docker("run", "--rm", "--volume", "small:/v", "busybox", "dd", "if=/dev/zero", "of=/v/x", "bs=1M",
                    "count=64", check=False)  # fmt: skip
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    docker("volume", "rm", "small")
    refused = docker("volume", "create", "--opt", "Colour=red", check=False)
    assert "colour" in refused.stderr.lower()


def test_anonymous_volumes_go_with_their_container(docker: Docker) -> None:
    before = docker.out("volume", "ls", "-q")
    docker("run", "--rm", "--volume", "/data", "busybox", "touch", "/data/x")
    assert docker.out("volume", "ls", "-q") == before
    docker("run", "--name", "anon", "--volume", "/data", "busybox", "touch", "/data/x")
    assert docker.out("volume", "ls", "-q") != before
    docker("rm", "--volumes", "anon")
    assert docker.out("volume", "ls", "-q") == before
