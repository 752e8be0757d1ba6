"""Many runs leave nothing: the ``docker`` fixture compares the host before and after."""

from __future__ import annotations

import concurrent.futures

import pytest

from tests.system.harness import Docker

pytestmark = pytest.mark.system


@pytest.mark.slow  # minutes under emulation: make soak
@pytest.mark.timeout(900)
def test_fifty_runs_in_a_row(docker: Docker) -> None:
    for number in range(50):
        assert docker.out("run", "--rm", "--publish", "80", "busybox", "echo", str(number)) == str(number)


def test_ten_at_once(docker: Docker) -> None:
    def one(number: int) -> str:
        return docker.out("run", "--rm", "--publish", "80", "--volume", "/v", "busybox", "echo", str(number))

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(one, range(10))) == [str(number) for number in range(10)]
