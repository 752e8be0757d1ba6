import hashlib
from collections.abc import AsyncIterator

import pytest

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason
from portlayer.storage.layerstream import LayerStream


async def source(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("chunks", "empty"),
    [
        ((), True),
        ((b"",), True),
        ((bytes(1024),), True),
        ((bytes(1), bytes(10240)), True),
        ((bytes(1024), b"behind the end"), True),
        ((bytes(500), b"x", bytes(1000)), False),
        ((b"entry".ljust(512, b"\0"), bytes(1024)), False),
        ((b"x",), False),
    ],
)
async def test_looking_for_entries_loses_nothing(chunks: tuple[bytes, ...], empty: bool) -> None:
    stream = LayerStream(source(*chunks))
    assert await stream.is_empty() == empty
    assert b"".join([chunk async for chunk in stream.chunks()]) == b"".join(chunks)
    stream.verify("sha256:" + hashlib.sha256(b"".join(chunks)).hexdigest())


async def test_the_digest_covers_every_byte() -> None:
    data = bytes(range(256)) * 20_000
    stream = LayerStream(source(data, data[:100]))
    await stream.drain()
    stream.verify("sha256:" + hashlib.sha256(data + data[:100]).hexdigest())
    with pytest.raises(PortLayerError, match="expected sha256:00") as caught:
        stream.verify("sha256:00")
    assert caught.value.reason == Reason.BAD_LAYER
