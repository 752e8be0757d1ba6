"""Small questions to the host: time-stamp counter, taps."""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.hypervisor.base import HypervisorError
from portlayer.hypervisor.qemu.tap import open_tap
from portlayer.hypervisor.qemu.tsc import _is_steady, measure_khz


@pytest.mark.parametrize(
    ("flags", "steady"),
    [
        ("fpu constant_tsc nonstop_tsc", True),
        ("fpu constant_tsc", False),
        ("nonstop_tsc_s3 constant_tsc", False),
    ],
)
def test_only_a_steady_counter_is_told(tmp_path: Path, flags: str, steady: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n")
    assert _is_steady(cpuinfo) is steady


def test_two_measurements_agree() -> None:
    first, second = measure_khz(), measure_khz()
    assert abs(first - second) <= first // 1000


def test_a_missing_tap_is_not_made() -> None:
    with pytest.raises(HypervisorError, match="mtnowhere: there is no such interface"):
        open_tap("mtnowhere")
