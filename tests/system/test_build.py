"""docker build with the classic builder, through the real CLI: what comes of it and what is said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Docker, Vch, eventually

pytestmark = pytest.mark.system

DOCKERFILE = """
# comment
ARG BASE=busybox
FROM ${BASE} AS maker
ARG WHO=nobody
ENV GREETING="hello $WHO"
WORKDIR /place/made
RUN echo "$GREETING" > said && \\
    # inside
    echo to-stderr >&2
COPY dir/ files/
FROM busybox
COPY --from=maker /place/made/said /place/made/files/*.txt /from/
ADD packed.tgz /unpacked/
COPY --chown=1:2 --chmod=640 one dir/a.txt /owned/
ONBUILD RUN echo triggered > /trigger
USER 1:2
CMD ["cat", "/from/said"]
"""


@pytest.fixture
def build(vch: Vch, docker: Docker) -> Iterator[Docker]:
    """Images and layers are those of before when the test has passed."""

    def images() -> list[str]:
        return sorted(docker.out("images", "--all", "--quiet", "--no-trunc").split())

    before = images(), sorted(os.listdir(vch.root / "layers"))
    docker.environment["DOCKER_BUILDKIT"] = "0"
    yield docker
    del docker.environment["DOCKER_BUILDKIT"]
    docker("image", "prune", "--force")
    assert (images(), sorted(os.listdir(vch.root / "layers"))) == before


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    for name in ("one", "dir/a.txt", "dir/b.txt", "dir/secret"):
        (tmp_path / name).write_text(f"{name}\n")
    subprocess.run(["tar", "-czf", tmp_path / "packed.tgz", "-C", tmp_path, "dir"], check=True)
    (tmp_path / ".dockerignore").write_text("dir/secret\nDockerfile\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def test_a_whole_dockerfile_its_cache_and_its_triggers(build: Docker, context: Path) -> None:
    arguments = (
        "--build-arg",
        "WHO=you",
        "--build-arg",
        "NOT=used",
        "--label",
        "k=a b",
        "--tag",
        "it:1",
        "--tag",
        "it:2",
    )
    said = build.out("build", *arguments, context)
    lines = said.splitlines()
    assert [line for line in lines if line.startswith("Step ")][:4] == [
        "Step 1/15 : ARG BASE=busybox",
        "Step 2/15 : FROM ${BASE} AS maker",
        "Step 3/15 : ARG WHO=nobody",
        'Step 4/15 : ENV GREETING="hello $WHO"',
    ]
    assert sum(line.startswith(" ---> Running in ") for line in lines) == 1
    assert sum(line.startswith((" ---> Removed intermediate", "\x1b[0m ---> Removed")) for line in lines) == 1
    image = build.json("image", "inspect", "it:1")[0]
    short = image["Id"].removeprefix("sha256:")[:12]
    assert lines[-4:] == [
        "[Warning] One or more build-args [NOT] were not consumed",
        f"Successfully built {short}",
        "Successfully tagged it:1",
        "Successfully tagged it:2",
    ]
    assert (image["Config"]["Labels"], image["Config"]["User"]) == ({"k": "a b"}, "1:2")
    script = "cat /from/said; ls /from; ls /unpacked/dir; stat -c '%u %g %a' /owned/one; id -u"
    out = build.out("run", "--rm", "it:1", "sh", "-c", script).splitlines()
    assert out == ["hello you", "a.txt", "b.txt", "said", "a.txt", "b.txt", "secret", "1 2 640", "1"]

    again = build.out("build", *arguments, context)
    assert again.count(" ---> Using cache") == 12
    assert "Running in" not in again
    assert f"Successfully built {short}" in again
    (context / "one").write_text("changed\n")
    changed = build.out("build", *arguments, context)
    assert changed.count(" ---> Using cache") == 7
    child = context / "child"
    child.mkdir()
    (child / "Dockerfile").write_text("FROM it:1\nUSER root\n")
    assert "permission denied" in build("build", child, check=False).stdout.lower()  # the trigger runs as 1:2
    assert build.out("ps", "--all", "--quiet").split() != []  # and its container stays, as with dockerd
    build("rm", *build.out("ps", "--all", "--quiet").split())
    build("rmi", "it:1", "it:2")


def test_failures_end_with_dockers_words_and_codes(build: Docker, context: Path) -> None:
    def failed(text: str, *arguments: str) -> tuple[int, str]:
        (context / "Dockerfile").write_text(text)
        result = build("build", "--force-rm", *arguments, context, check=False)
        return result.returncode, result.stderr.strip().splitlines()[-1]

    assert failed("FROM busybox\nRUN exit 7") == (
        7,
        "The command '/bin/sh -c exit 7' returned a non-zero code: 7",
    )
    assert failed("FROM busybox\n\nFOO x") == (
        1,
        "Error response from daemon: dockerfile parse error on line 3: unknown instruction: FOO",
    )
    assert failed("FROM busybox\nCOPY nope /") == (
        1,
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
    )
    assert failed("FROM busybox\nCOPY dir/secret /")[0] == 1
    code, words = failed("FROM busybox\nRUN --mount=type=secret,id=x cat")
    assert (code, "the --mount option requires BuildKit" in words) == (1, True)
    code, words = failed("FROM busybox\nRUN x", "--target", "none")
    assert (code, "failed to reach build target none in Dockerfile" in words) == (1, True)
    version = build.host.run(
        "curl",
        "--silent",
        "--unix-socket",
        build.socket,
        "--request",
        "POST",
        "http://d/v1.50/build?version=2",
    )
    assert "DOCKER_BUILDKIT=0" in json.loads(version.stdout)["message"]


def test_a_volume_holds_what_was_copied_and_loses_what_a_step_writes(build: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nVOLUME /data\nCOPY one /data/kept\nRUN cat /data/kept && echo x > /data/lost\n"
    )
    assert "\none\n" in build.out("build", "--tag", "volume:1", context)
    assert build.out("run", "--rm", "volume:1", "ls", "/data") == "kept"
    build("rmi", "volume:1")


def test_quiet_scratch_and_options(build: Docker, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY one /\n")
    image = build.out("build", "--quiet", context)
    assert build.json("image", "inspect", image)[0]["Id"] == image
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN grep -c . /proc/net/route; cat /proc/meminfo | head -1; ulimit -n\n"
    )
    said = build.out(
        "build", "--network", "none", "--memory", "96m", "--ulimit", "nofile=100:100", "--no-cache", context
    )
    assert "\n100\n" in said
    build("rmi", image)


@pytest.mark.parametrize("how", ["client", "early", "engine"])
def test_a_killed_build_leaves_nothing(build: Docker, vch: Vch, context: Path, how: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nENV A=1\nRUN echo begun; sleep 600\n")
    process = build.popen("build", context, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        seen = b"Step 3/3" if how == "early" else b"begun\n"
        while not (line := process.stdout.readline()).startswith(seen):
            assert line, "the build ended early"
        if how != "engine":
            process.send_signal(signal.SIGINT)
        else:
            vch.kill("engine")
        process.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    eventually(lambda: not build.out("ps", "--all", "--quiet"), "the step's container has gone")
    assert not vch.qemus()
