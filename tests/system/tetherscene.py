"""Where the tether's tests put their VMs: an image, and a network namespace with two taps."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.guestvm import GuestVm, busybox_root, ext4
from tests.system.harness import GUEST
from tether import tether_pb2 as pb

__all__ = ["MAC", "SECOND_MAC", "make_vm", "netns", "root_image"]

MAC = "02:00:00:00:00:01"
SECOND_MAC = "02:00:00:00:00:02"


@pytest.fixture(scope="module")
def root_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert (GUEST / "kernel").exists(), "the guest is not built: run `make guest`"
    directory = tmp_path_factory.mktemp("image")
    return ext4(directory / "root.img", busybox_root(directory / "root"))


@pytest.fixture(scope="module")
def netns() -> Iterator[str]:
    """A network namespace with a bridge that has 10.9.0.1/24 and two taps on it."""
    name = f"guest-{os.getpid()}"
    commands = [
        "ip link add br0 type bridge",
        "ip addr add 10.9.0.1/24 dev br0",
        "ip addr add fd00:9::1/64 dev br0 nodad",
        "ip tuntap add tap0 mode tap",
        "ip tuntap add tap1 mode tap",
        "ip link set tap0 master br0 up",
        "ip link set tap1 master br0 up",
        "ip link set br0 up",
        "ip link set lo up",
    ]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in commands:
            subprocess.run(["ip", "netns", "exec", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def make_vm(directory: Path, root_image: Path, config: pb.BootConfig, **options: object) -> GuestVm:
    directory.mkdir(exist_ok=True)
    root = directory / "root.img"
    shutil.copy(root_image, root)
    disks = [("root", root), *options.pop("disks", [])]  # type: ignore[misc]
    return GuestVm(directory=directory, guest=GUEST, config=config, disks=disks, **options)  # type: ignore[arg-type]
