"""Images made here: layers named by what is in them, configurations with the parent's history."""

import json
from collections.abc import AsyncGenerator

from engine.images.making import NewImage
from engine.images.service import ImageService
from engine.registry.platform import DEFAULT_PLATFORM
from engine.registry.reference import parse_reference
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import tar
from tests.engine.registry.server import digest_of


async def pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def image(parent=None, **fields) -> NewImage:
    fields = {"config": {"Cmd": ["sh"]}, "created_by": "sh", "platform": DEFAULT_PLATFORM, **fields}
    return NewImage(parent=parent, **fields)


async def test_an_image_on_another(service: ImageService, fake: FakePortLayer) -> None:
    base = await service.maker.make(image(), pieces(tar(a=b"1")))
    name = parse_reference("made:1")
    made = await service.maker.make(
        image(base, author="me", comment="why", container="c"), pieces(tar(b=b"2")), [name]
    )
    assert [layer.diff_id for layer in made.layers] == [digest_of(tar(a=b"1")), digest_of(tar(b=b"2"))]
    assert list(fake.layers) == [layer.chain_id for layer in made.layers]
    assert fake.tars[made.top] == tar(b=b"2")
    index = await service.catalog.index()
    assert index.named(name) == made.id
    assert [child.id for child in index.children(base.id)] == [made.id]
    raw = json.loads(made.config.data)
    assert [(step.get("author"), step.get("comment")) for step in raw["history"]] == [
        (None, None),
        ("me", "why"),
    ]
    assert (raw["author"], raw["container"]) == ("me", "c")


async def test_a_layer_without_entries_is_no_layer(service: ImageService, fake: FakePortLayer) -> None:
    base = await service.maker.make(image(), pieces(tar(a=b"1")))
    made = await service.maker.make(image(base), pieces(bytes(1024)))
    assert made.layers == base.layers
    assert len(fake.layers) == 1
    assert made.config.history[-1].empty_layer


async def test_parents_are_known_after_a_restart(
    service: ImageService, config, port, events, fake: FakePortLayer
) -> None:
    base = await service.maker.make(image(), pieces(tar(a=b"1")))
    made = await service.maker.make(image(base))
    again = ImageService(config, port, events)
    found = (await again.catalog.index()).get(made.id)
    assert found is not None
    assert found.parent == base.id
    await again.close()
