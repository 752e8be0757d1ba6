"""From limits to VM sizes."""

from __future__ import annotations

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.sizing import SMALLEST_MIB, GuestSize, guest_size, largest_limit
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Resources
from vch.config import Defaults

DEFAULTS = Defaults(memory_mib=700, cpus=3)


@pytest.mark.parametrize(
    ("resources", "size"),
    [
        (Resources(), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(memory=6 << 20), GuestSize(vcpus=3, memory_mib=SMALLEST_MIB)),
        (Resources(memory=(4800 << 20) - 1), GuestSize(vcpus=3, memory_mib=4800 + 100 + 96)),
        (Resources(nano_cpus=1), GuestSize(vcpus=1, memory_mib=700)),
        (Resources(nano_cpus=2_000_000_001), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(cpu_quota=150_000), GuestSize(vcpus=2, memory_mib=700)),
        (Resources(cpu_quota=150_000, cpu_period=50_000), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(cpu_quota=-1), GuestSize(vcpus=3, memory_mib=700)),
    ],
)
def test_sizes(resources: Resources, size: GuestSize) -> None:
    assert guest_size(resources, DEFAULTS) == size


@pytest.mark.parametrize("limit", [100, 1000, 4096, 100_000])
def test_a_vm_has_room_for_the_limit_it_was_made_for(limit: int) -> None:
    size = guest_size(Resources(memory=limit << 20), DEFAULTS)
    assert limit << 20 <= largest_limit(size.memory_mib) < (limit + limit // 40 + 2) << 20


def test_more_cpus_than_a_vm_can_have_are_refused() -> None:
    with pytest.raises(PortLayerError) as caught:
        guest_size(Resources(nano_cpus=10**15), DEFAULTS)
    assert caught.value.reason == Reason.LIMIT_EXCEEDED
