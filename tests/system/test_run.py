"""docker run, as a newcomer meets it."""

from __future__ import annotations

import os

import pytest

from tests.system.harness import Docker

pytestmark = pytest.mark.system


def test_a_container_has_the_guests_kernel_not_the_hosts(docker: Docker) -> None:
    seen = docker.out("run", "--rm", "busybox", "uname", "-r")
    assert seen != os.uname().release
    assert seen.startswith("6.1")


@pytest.mark.parametrize("code", [0, 3, 127])
def test_the_exit_code_is_the_commands(docker: Docker, code: int) -> None:
    assert docker("run", "--rm", "busybox", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_stdout_and_stderr_come_apart(docker: Docker) -> None:
    result = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_stdin_goes_in_and_its_end_is_seen(docker: Docker) -> None:
    result = docker("run", "--rm", "-i", "busybox", "wc", "-c", input="x" * 100_000)
    assert result.stdout.strip() == "100000"


def test_a_missing_command_is_127_and_says_so(docker: Docker) -> None:
    result = docker("run", "--rm", "busybox", "no-such-command", check=False)
    assert result.returncode == 127
    assert 'exec: "no-such-command": executable file not found in $PATH' in result.stderr
