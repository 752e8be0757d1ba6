"""What a boot configuration must be."""

from __future__ import annotations

import pytest

from tether.bootconfig import ConfigError, parse
from tether.tether_pb2 import BootConfig


def test_a_configuration_is_read_and_may_be_padded() -> None:
    raw = BootConfig(version=1, id="x", wait_for_launch=True).SerializeToString()
    # Field 1000, length-delimited, 3 bytes: nobody knows it.
    padded = parse(raw + b"\xc2\x3e\x03\0\0\0")
    assert (padded.id, padded.wait_for_launch) == ("x", True)


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_refused(version: int) -> None:
    with pytest.raises(ConfigError, match=f"version {version} is not 1"):
        parse(BootConfig(version=version).SerializeToString())


def test_damage_is_named() -> None:
    with pytest.raises(ConfigError, match="damaged"):
        parse(b"\xff\xff\xff")
