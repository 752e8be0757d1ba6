from __future__ import annotations

from pathlib import Path

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.nfs import nfs_mount
from portlayer.portlayer_pb2 import VolumeMount
from tests.portlayer.fakes.storage import FakeVolume


def volume(options: str, *, read_only: bool = False) -> FakeVolume:
    return FakeVolume(
        Path("/none"), device=":/export", nfs="nfs4", nfs_options=options, device_read_only=read_only
    )


@pytest.mark.parametrize(
    ("options", "source", "words"),
    [
        ("addr=10.0.0.1,rw,vers=4.2", "10.0.0.1:/export", "addr=10.0.0.1,vers=4.2"),
        ("soft,addr=fd00::1", "[fd00::1]:/export", "soft,addr=fd00::1"),
        ("addr=localhost", "127.0.0.1:/export", "addr=127.0.0.1"),
    ],
)
def test_the_kernel_gets_an_address(options: str, source: str, words: str) -> None:
    made = nfs_mount(VolumeMount(volume="v", destination="/x", subpath="a"), volume(options))
    if "localhost" in options:
        source, words = made.source, made.options  # either family
        assert source.endswith(":/export")
    assert (made.nfs, made.source, made.options) == ("nfs4", source, words)
    assert (made.destination, made.subpath, made.read_only) == ("/x", "a", False)


def test_either_says_read_only() -> None:
    writable = VolumeMount(volume="v", destination="/x")
    assert nfs_mount(writable, volume("addr=10.0.0.1", read_only=True)).read_only
    assert nfs_mount(VolumeMount(volume="v", read_only=True), volume("addr=10.0.0.1")).read_only


def test_an_unknown_server_is_named() -> None:
    with pytest.raises(PortLayerError, match=r"NFS server no\.such\.host\.invalid"):
        nfs_mount(VolumeMount(volume="v"), volume("addr=no.such.host.invalid"))
