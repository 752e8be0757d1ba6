from __future__ import annotations

import pytest

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage.volumeoptions import DEFAULT_CAPACITY, VolumeOptions, parse_options

STORES = ("default", "big")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, VolumeOptions(capacity=DEFAULT_CAPACITY)),
        ({"VolumeStore": "big", "capacity": "1GB"}, VolumeOptions(store="big", capacity=1 << 30)),
        ({"Shared": "true"}, VolumeOptions(shared=True)),
        ({"type": "none", "o": "bind,ro", "device": "/x"}, VolumeOptions(device="/x", read_only=True)),
    ],
)
def test_options(options: dict[str, str], expected: VolumeOptions) -> None:
    assert parse_options(options, STORES) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "'colour' is not supported"),
        ({"VolumeStore": "no"}, "no volume store 'no'; there are: big, default"),
        ({"Shared": "maybe"}, "neither true nor false"),
        ({"Shared": "true", "Capacity": "1GB"}, "no capacity of its own"),
        ({"Capacity": "lots"}, "'lots' is not a size"),
        ({"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, "type=nfs is not supported"),
        ({"type": "none", "device": "/x"}, "o= is not supported"),
        ({"type": "none", "o": "bind,uid=3", "device": "/x"}, "o=bind,uid=3 is not supported"),
        ({"type": "none", "o": "bind", "device": "x"}, "an absolute path"),
        ({"type": "none", "o": "bind", "device": "/x", "Shared": "true"}, "mean nothing"),
    ],
)
def test_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(PortLayerError, match=words.replace("=", "=")) as caught:
        parse_options(options, STORES)
    assert caught.value.reason == Reason.NOT_SUPPORTED
