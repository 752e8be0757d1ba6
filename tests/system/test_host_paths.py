"""docker run -v and --mount type=bind of the host's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.harness import Docker, eventually

pytestmark = pytest.mark.system


@pytest.fixture
def place(docker: Docker, request: pytest.FixtureRequest) -> Path:
    made: Path = docker.host.directory / "shared" / request.node.name
    made.mkdir(exist_ok=True)  # a second run of the test finds the first's
    return made


def test_what_a_container_writes_is_on_the_host(docker: Docker, place: Path) -> None:
    (place / "file").write_text("one\n")
    (place / "kept").mkdir()
    (place / "kept" / "inner").write_text("safe\n")
    script = (
        "cat /etc/one; echo two >> /etc/one; echo made > /d/made; chown 1234:5678 /d/made; chmod 640 /d/made"
    )
    tries = "touch /ro/x || mount -o remount,rw /ro; touch /ro/x || echo refused; cat /ro/inner"
    out = docker.out(
        *("run", "--rm", "--privileged", "--volume", f"{place}/file:/etc/one", "--volume", f"{place}:/d"),
        *("--mount", f"type=bind,source={place}/kept,target=/ro,readonly", "--volume", f"{place}/new:/n"),
        *("busybox", "sh", "-c", f"{script}; {tries}"),
    )
    assert out.splitlines() == ["one", "refused", "safe"]
    assert (place / "file").read_text() == "one\ntwo\n"
    status = (place / "made").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 5678, 0o640)
    assert (place / "new").is_dir()
    assert os.listdir(place / "kept") == ["inner"]


def test_two_containers_share_a_path(docker: Docker, place: Path) -> None:
    both = ("--volume", f"{place}:/d")
    docker("run", "--detach", "--name", "writer", *both, "busybox", "sh", "-c", "echo hi > /d/x; sleep 1000")
    eventually((place / "x").exists, "it has written")
    assert docker.out("run", "--rm", "--volumes-from", "writer:ro", "busybox", "cat", "/d/x") == "hi"
    mount = docker.json("inspect", "writer")[0]["Mounts"][0]
    assert (mount["Type"], mount["Source"], mount["RW"]) == ("bind", str(place), True)
    assert docker.out("ps", "--filter", f"volume={place}", "--format", "{{.Names}}") == "writer"
    refused = docker("checkpoint", "create", "writer", "one", check=False)
    assert refused.returncode != 0
    assert docker.out("exec", "writer", "cat", "/d/x") == "hi", "it runs on"
    docker("rm", "--force", "writer")


def test_refusals(docker: Docker, place: Path) -> None:
    absent = docker("create", "--mount", f"type=bind,source={place}/no,target=/x", "busybox", check=False)
    assert f"bind source path does not exist: {place}/no" in absent.stderr
    (place / "out").symlink_to("/etc")
    for path in ("/etc", f"{place}/out"):
        refused = docker("create", "--volume", f"{path}:/x", "busybox", check=False)
        assert f"bind mount of host path {path} is not allowed" in refused.stderr


def test_a_shared_volume_is_in_several_running_containers(docker: Docker, place: Path) -> None:
    docker("volume", "create", "--opt", "Shared=true", "commons")
    docker("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", f"device={place}", "named")
    both = ("--volume", "commons:/etc", "--volume", "named:/d")
    script = "echo hi > /etc/note; echo there > /d/note; sleep 1000"
    docker("run", "--detach", "--name", "first", *both, "busybox", "sh", "-c", script)
    eventually((place / "note").exists, "it has written")
    reading = ("--mount", "type=volume,source=commons,target=/x,readonly", "--volume", "named:/y:ro")
    read = "cat /x/note /y/note; head -n 1 /x/passwd; touch /x/new /y/new"
    second = docker("run", "--rm", *reading, "busybox", "sh", "-c", read, check=False)
    assert second.stdout.split() == ["hi", "there", "root:x:0:0:root:/root:/bin/sh"]
    assert second.stderr.count("Read-only file system") == 2
    data = Path(docker.out("volume", "inspect", "--format", "{{.Mountpoint}}", "commons"))
    assert (data / "note").read_text() == "hi\n"
    assert docker.out("volume", "inspect", "--format", "{{.Mountpoint}}", "named") == str(place)
    docker("rm", "--force", "first")
    docker("volume", "rm", "commons", "named")
    assert not data.exists()
    assert (place / "note").exists(), "what is not ours stays"
