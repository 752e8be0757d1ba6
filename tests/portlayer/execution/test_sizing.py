"""From limits to VM sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.sizing import GuestSize, Sizing
from portlayer.portlayer_pb2 import Reason
from tether.tether_pb2 import Resources
from vch.config import Defaults, Guest, VchConfig

SIZING = Sizing(defaults=Defaults(memory_mib=700, cpus=3), initrd_mib=36)
DEBIAN = Sizing(defaults=Defaults(memory_mib=64, cpus=1), initrd_mib=51)  # a modular kernel's


@pytest.mark.parametrize(
    ("resources", "size"),
    [
        (Resources(), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(memory=6 << 20), GuestSize(vcpus=3, memory_mib=180)),
        (Resources(memory=(4800 << 20) - 1), GuestSize(vcpus=3, memory_mib=4800 + 100 + 96)),
        (Resources(nano_cpus=1), GuestSize(vcpus=1, memory_mib=700)),
        (Resources(nano_cpus=2_000_000_001), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(cpu_quota=150_000), GuestSize(vcpus=2, memory_mib=700)),
        (Resources(cpu_quota=150_000, cpu_period=50_000), GuestSize(vcpus=3, memory_mib=700)),
        (Resources(cpu_quota=-1), GuestSize(vcpus=3, memory_mib=700)),
    ],
)
def test_sizes(resources: Resources, size: GuestSize) -> None:
    assert SIZING.guest_size(resources) == size


@pytest.mark.parametrize("limit", [100, 1000, 4096, 100_000])
def test_a_vm_has_room_for_the_limit_it_was_made_for(limit: int) -> None:
    size = SIZING.guest_size(Resources(memory=limit << 20))
    assert limit << 20 <= SIZING.largest_limit(size.memory_mib) < (limit + limit // 40 + 2) << 20


@pytest.mark.parametrize("resources", [Resources(), Resources(memory=6 << 20), Resources(memory=64 << 20)])
def test_a_larger_initramfs_needs_a_larger_guest_whatever_the_limit(resources: Resources) -> None:
    """192 MiB was the floor once: a guest with Debian's modules could not unpack them and panicked."""
    assert DEBIAN.guest_size(resources).memory_mib == 72 + 3 * 51


def test_the_initramfs_of_the_vch_counts(tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    guest = Guest(kernel=tmp_path / "kernel", initrd=initrd)
    config = VchConfig(name="a", id="0" * 32, root=tmp_path, run=tmp_path, guest=guest)
    assert Sizing.of(config).initrd_mib == 0
    initrd.write_bytes(bytes((3 << 20) + 1))
    assert Sizing.of(config).initrd_mib == 4


def test_more_cpus_than_a_vm_can_have_are_refused() -> None:
    with pytest.raises(PortLayerError) as caught:
        SIZING.guest_size(Resources(nano_cpus=10**15))
    assert caught.value.reason == Reason.LIMIT_EXCEEDED
