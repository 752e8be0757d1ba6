import json

import pytest

from engine.http import ApiError, BadRequest, NotFound
from engine.images.catalog import Catalog
from engine.images.config import parse_config
from engine.images.documents import (
    BadDocument,
    NameDocument,
    decode_image,
    decode_name,
    encode_image,
    encode_name,
    image_key,
    name_key,
)
from engine.images.index import StoredImage, StoredLayer
from engine.images.layers import LayerPool
from engine.images.provenance import Provenance
from engine.registry.reference import parse_reference
from engine.rpc import PortLayer
from portlayer import portlayer_pb2 as pb
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import Sample, sample, tar

BASE, ONE = tar(base=b"b"), tar(one=b"1")


def stored(image: Sample) -> StoredImage:
    return StoredImage(
        config=parse_config(image.config),
        layers=tuple(
            StoredLayer(chain_id=chain, diff_id=diff, size=len(layer))
            for chain, diff, layer in zip(image.chain, image.diff_ids, image.layers, strict=True)
        ),
    )


def put_layers(fake: FakePortLayer, image: Sample) -> None:
    parent = ""
    for chain_id, layer in zip(image.chain, image.layers, strict=True):
        fake.layers[chain_id] = pb.Layer(chain_id=chain_id, parent=parent, size=len(layer))
        fake.tars[chain_id] = layer
        parent = chain_id


@pytest.fixture
def catalog(port: PortLayer) -> Catalog:
    return Catalog(port, LayerPool(port), Provenance(port))


async def test_a_new_engine_finds_what_the_old_one_kept(
    catalog: Catalog, port: PortLayer, fake: FakePortLayer
) -> None:
    image = sample(BASE, ONE, labels={"k": "v"})
    put_layers(fake, image)
    digest = "sha256:" + "e" * 64
    names = [parse_reference("a:1"), parse_reference("r.io/b:2"), parse_reference(f"a@{digest}")]
    await catalog.add(stored(image), names)
    again = Catalog(port, LayerPool(port), Provenance(port))
    assert await again.resolve("a:1") == await catalog.resolve("a:1")
    record = await again.resolve(image.id)
    assert (record.layer, record.size, record.config["Labels"]) == (
        image.chain[1],
        len(BASE) + len(ONE),
        {"k": "v"},
    )
    assert record.repo_tags == ["a:1", "r.io/b:2"]
    assert record.repo_digests == [f"a@{digest}"]
    assert (await again.index()).last_tagged(image.id) == (await catalog.index()).last_tagged(image.id) > 0


async def test_loading_sweeps_layers_and_names_without_an_image(
    catalog: Catalog, fake: FakePortLayer
) -> None:
    orphan, kept = sample(BASE, ONE), sample(tar(kept=b"k"))
    put_layers(fake, orphan)
    put_layers(fake, kept)
    fake.keys[image_key(kept.id)] = encode_image(stored(kept))
    ghost = NameDocument(reference=parse_reference("ghost:1"), image=orphan.id, time_ns=1)
    fake.keys[name_key(ghost.reference)] = encode_name(ghost)
    index = await catalog.index()
    assert [image.id for image in index] == [kept.id]
    assert fake.done("remove") == [orphan.chain[1], orphan.chain[0]]
    assert list(fake.keys) == [image_key(kept.id)]


async def test_layers_of_containers_survive_the_sweep(catalog: Catalog, fake: FakePortLayer) -> None:
    image = sample(BASE, ONE)
    put_layers(fake, image)
    fake.containers["c"] = pb.Container(handle=pb.Handle(spec=pb.ContainerSpec(layer=image.chain[1])))
    await catalog.index()
    assert set(fake.layers) == set(image.chain)


async def test_a_document_that_cannot_be_read_stops_the_sweep(
    catalog: Catalog, fake: FakePortLayer, caplog: pytest.LogCaptureFixture
) -> None:
    image = sample(BASE)
    put_layers(fake, image)
    fake.keys[image_key(image.id)] = b"damaged"
    assert len(await catalog.index()) == 0
    assert set(fake.layers) == set(image.chain)
    assert "cannot read an image" in caplog.text


async def test_a_port_layer_that_is_down_is_asked_again_by_the_next_call(
    catalog: Catalog, fake: FakePortLayer
) -> None:
    orphan = sample(BASE)
    put_layers(fake, orphan)

    async def fail(what: str, name: str) -> None:
        raise RuntimeError("not now")

    fake.before = fail
    with pytest.raises(ApiError, match="not now"):
        await catalog.index()
    fake.before = None
    assert len(await catalog.index()) == 0
    assert not fake.layers


async def test_names_move_between_images(catalog: Catalog) -> None:
    one, two = sample(BASE), sample(ONE)
    await catalog.add(stored(one), [parse_reference("a:1")])
    await catalog.add(stored(two), [parse_reference("a:1")])
    index = await catalog.index()
    assert index.references(one.id) == []
    assert [str(name) for name in index.references(two.id)] == ["docker.io/library/a:1"]


# ------------------------------------------------------------------------ what a name means


async def test_resolving(catalog: Catalog) -> None:
    image = sample(BASE)
    digest = "sha256:" + "e" * 64
    await catalog.add(stored(image), [parse_reference("a").tagged, parse_reference(f"r.io/x@{digest}")])
    for name in (
        "a",
        "a:latest",
        "docker.io/library/a",
        image.id,
        image.id[7:],
        image.id[7:10],
        image.id[:12],
        f"r.io/x@{digest}",
        f"r.io/x:any@{digest}",
    ):
        assert (await catalog.resolve(name)).id == image.id, name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "No such image: nosuch:latest"),
        ("r.io/a:1", "No such image: r.io/a:1"),
        ("sha256:" + "0" * 64, "No such image: sha256:0000"),
        ("f" * 64, "No such image: ffff"),
        ("0000", "No such image: 0000:latest"),
    ],
)
async def test_what_is_not_there_is_404(catalog: Catalog, name: str, words: str) -> None:
    with pytest.raises(NotFound, match=words):
        await catalog.resolve(name)


@pytest.mark.parametrize("name", ["UPPER", "a:b:c", "", "a@sha256:00"])
async def test_what_is_no_name_is_400(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadRequest):
        await catalog.resolve(name)


async def test_an_ambiguous_prefix_is_refused(catalog: Catalog) -> None:
    images: list[Sample] = []
    while len({image.id[7] for image in images}) == len(images):
        images.append(sample(BASE, created=f"2020-01-01T00:00:{len(images):02d}Z"))
    for image in images:
        await catalog.add(stored(image))
    with pytest.raises(BadRequest, match=f"ambiguous image ID prefix {images[-1].id[7]}: 2 images match"):
        await catalog.resolve(images[-1].id[7])


async def test_a_name_beats_an_id_prefix(catalog: Catalog) -> None:
    one, two = sample(BASE), sample(ONE)
    await catalog.add(stored(one))
    await catalog.add(stored(two), [parse_reference(one.id[7:17]).tagged])
    assert (await catalog.resolve(one.id[7:17])).id == two.id


# ------------------------------------------------------------------------ documents


def test_documents_are_refused_when_they_are_not_what_their_key_says() -> None:
    image = stored(sample(BASE))
    key = image_key(image.id)
    assert decode_image(key, encode_image(image)) == image
    good = json.loads(encode_image(image))
    for damage in (
        b"",
        b"[]",
        b"{}",
        json.dumps(good | {"sizes": []}).encode(),
        json.dumps(good | {"sizes": [-1]}).encode(),
        json.dumps(good | {"config": "{}"}).encode(),
        json.dumps(good | {"config": good["config"] + " "}).encode(),
        json.dumps(good | {"config": "\ud800"}).encode(),
    ):
        with pytest.raises(BadDocument):
            decode_image(key, damage)
    name = NameDocument(reference=parse_reference("a:1"), image=image.id, time_ns=5)
    key = name_key(name.reference)
    assert decode_name(key, encode_name(name)) == name
    for damage in (
        b"",
        b"{}",
        encode_name(name).replace(b"a:1", b"b:1"),
        encode_name(name).replace(b"a:1", b"A"),
    ):
        with pytest.raises(BadDocument):
            decode_name(key, damage)
