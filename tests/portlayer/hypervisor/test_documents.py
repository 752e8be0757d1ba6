"""A configuration survives JSON; damage is an error, not another configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from portlayer.hypervisor.base import Disk, Nic, Share, VmConfig
from portlayer.hypervisor.documents import decode_hardware, encode_hardware

CONFIG = VmConfig(
    id="a" * 64,
    name="box",
    vcpus=2,
    memory_mib=256,
    disks=(Disk(id="root", path=Path("/d/root.vmdk"), read_only=False),),
    nics=(Nic(id="n0", mac="02:00:00:00:00:01", network="net", mtu=1400),),
    shares=(Share(tag="s", path=Path("/srv"), read_only=True),),
    boot_config=b"\0boot",
    extra={"key": b"\xff"},
)


def test_it_comes_back_whole() -> None:
    document = json.loads(json.dumps(encode_hardware(CONFIG)))
    again = decode_hardware(
        CONFIG.id, document, boot_config=b"\0boot", extra={"key": b"\xff"}, shares=CONFIG.shares
    )
    assert again == CONFIG


def test_what_is_kept_elsewhere_is_not_in_the_document() -> None:
    bare = dataclasses.replace(CONFIG, shares=(), boot_config=b"", extra={})
    assert encode_hardware(bare) == encode_hardware(CONFIG)


@pytest.mark.parametrize(
    "damage",
    [{"vcpus": "many"}, {"disks": [{}]}, {"nics": [{"id": "n0"}]}, {"memory_mib": None}, {"disks": None}],
)
def test_damage_is_an_error(damage: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_hardware(CONFIG.id, encode_hardware(CONFIG) | damage, boot_config=b"", extra={})
