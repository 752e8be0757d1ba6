"""Docker's numbers as cgroup v2 files."""

from __future__ import annotations

import pytest

from tether.resources import cgroup_files
from tether.tether_pb2 import Resources


def files(**fields: object) -> dict[str, str]:
    return {name: value for name, value, _ in cgroup_files(Resources(**fields))}  # type: ignore[arg-type]


def test_nothing_asked_is_no_limit() -> None:
    assert files() == {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.low": "0",
        "cpu.max": "max 100000",
        "pids.max": "max",
        "cpu.weight": "100",
        "cpuset.cpus": "\n",
    }


@pytest.mark.parametrize(("swap", "expected"), [(0, "100"), (-1, "max"), (100, "0"), (150, "50"), (50, "0")])
def test_swap_is_counted_alone(swap: int, expected: str) -> None:
    assert files(memory=100, memory_swap=swap)["memory.swap.max"] == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"nano_cpus": 1_500_000_000}, "150000 100000"),
        ({"nano_cpus": 1}, "1000 100000"),
        ({"cpu_quota": 5000, "cpu_period": 20000}, "5000 20000"),
        ({"cpu_quota": -1}, "max 100000"),
    ],
)
def test_cpu_time(fields: dict[str, int], expected: str) -> None:
    assert files(**fields)["cpu.max"] == expected


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, "1"), (1024, "39"), (262144, "10000"), (1 << 40, "10000")]
)
def test_shares_become_weights_as_with_runc(shares: int, weight: str) -> None:
    assert files(cpu_shares=shares)["cpu.weight"] == weight


def test_the_rest() -> None:
    made = files(pids_limit=7, cpuset_cpus="0-1", memory_reservation=5, blkio_weight=1000)
    assert (made["pids.max"], made["cpuset.cpus"], made["memory.low"]) == ("7", "0-1", "5")
    assert made["io.weight"] == "10000"
    assert files(pids_limit=-1)["pids.max"] == "max"
    required = {name for name, _, needed in cgroup_files(Resources(cpuset_cpus="0")) if needed}
    assert required == {"memory.max", "memory.low", "cpu.max", "pids.max", "cpuset.cpus"}
