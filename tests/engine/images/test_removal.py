from dataclasses import dataclass, field

import pytest

from engine.http import ApiError, Conflict, NotFound
from engine.images.catalog import Catalog
from engine.images.config import parse_config
from engine.images.index import StoredImage, StoredLayer
from engine.images.provenance import Provenance
from engine.images.removal import Removal, User, is_single
from engine.images.service import ImageService
from engine.registry.reference import parse_reference
from portlayer import portlayer_pb2 as pb
from tests.engine.images.portlayer import FakePortLayer, Hook
from tests.engine.images.samples import Sample, sample, tar

BASE, ONE, TWO = tar(base=b"b"), tar(one=b"1"), tar(two=b"2")
DIGEST = "sha256:" + "d" * 64


@dataclass
class House:
    service: ImageService
    fake: FakePortLayer
    users: dict[str, list[User]] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)

    async def put(self, image: Sample, *names: str) -> None:
        await self.service.catalog.index()  # its first load would sweep what is put here
        layers = []
        parent = ""
        for chain_id, diff_id, layer in zip(image.chain, image.diff_ids, image.layers, strict=True):
            self.fake.layers.setdefault(
                chain_id, pb.Layer(chain_id=chain_id, parent=parent, diff_id=diff_id, size=len(layer))
            )
            self.fake.tars[chain_id] = layer
            layers.append(StoredLayer(chain_id=chain_id, diff_id=diff_id, size=len(layer)))
            parent = chain_id
        stored = StoredImage(config=parse_config(image.config), layers=tuple(layers))
        await self.service.catalog.add(stored, [parse_reference(name) for name in names])

    async def remove(self, name: str, *, force: bool = False) -> list[str]:
        index = await self.service.catalog.index()
        removal = Removal(
            self.service.catalog, index, self.users, lambda what, image: self.events.append((what, image.id))
        )
        await removal.remove(name, force=force)
        return [record.untagged or f"-{record.deleted}" for record in removal.records]

    def use(self, image: Sample, *, running: bool) -> None:
        self.users[image.id] = [User(id="c" * 64, running=running)]
        self.fake.containers["c"] = pb.Container(
            handle=pb.Handle(id="c" * 64, spec=pb.ContainerSpec(layer=image.chain[-1]))
        )


@pytest.fixture
def house(service: ImageService, fake: FakePortLayer) -> House:
    return House(service, fake)


async def test_the_last_name_takes_image_and_layers_along(house: House) -> None:
    image = sample(BASE, ONE)
    await house.put(image, "a:1", f"a@{DIGEST}")
    assert await house.remove("a:1") == [
        "a:1",
        f"a@{DIGEST}",
        f"-{image.id}",
        f"-{image.chain[1]}",
        f"-{image.chain[0]}",
    ]
    assert (house.fake.layers, house.fake.keys) == ({}, {})
    assert [what for what, _ in house.events] == ["untag", "untag", "delete"]


async def test_one_of_two_names_goes_alone(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1", "b:1", f"a@{DIGEST}")
    assert await house.remove("a:1") == ["a:1", f"a@{DIGEST}"]
    assert (await house.service.resolve("b:1")).id == image.id


async def test_the_digest_stays_while_its_repository_has_a_tag(house: House) -> None:
    await house.put(sample(BASE), "a:1", "a:2", f"a@{DIGEST}")
    assert await house.remove("a:1") == ["a:1"]
    assert await house.remove(f"a@{DIGEST}") == [f"a@{DIGEST}"]
    assert (await house.service.resolve("a:2")).repo_digests == []


async def test_shared_layers_stay(house: House) -> None:
    one, two = sample(BASE, ONE), sample(BASE, TWO)
    await house.put(one, "a:1")
    await house.put(two, "a:2")
    assert await house.remove("a:1") == ["a:1", f"-{one.id}", f"-{one.chain[1]}"]
    assert set(house.fake.layers) == set(two.chain)


async def test_an_id_takes_every_name_of_one_repository(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1", f"a@{DIGEST}")
    assert await house.remove(image.id[7:19]) == ["a:1", f"a@{DIGEST}", f"-{image.id}", f"-{image.chain[0]}"]


async def test_an_id_with_names_in_several_repositories_must_be_forced(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1", "b:1")
    with pytest.raises(Conflict) as caught:
        await house.remove(image.id)
    assert caught.value.message == (
        f"conflict: unable to delete {image.id[7:19]} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert len(await house.remove(image.id, force=True)) == 4


async def test_a_name_whose_image_a_container_uses_must_be_forced(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1")
    house.use(image, running=False)
    with pytest.raises(Conflict) as caught:
        await house.remove("a:1")
    assert caught.value.message == (
        'conflict: unable to remove repository reference "a:1" (must force) - '
        f"container cccccccccccc is using its referenced image {image.id[7:19]}"
    )
    # forced: names and image go, the layer stays for the container and goes with the next sweep after it
    assert await house.remove("a:1", force=True) == ["a:1", f"-{image.id}"]
    assert set(house.fake.layers) == set(image.chain)
    house.fake.containers.clear()
    await house.service.catalog.sweep()
    assert house.fake.layers == {}


async def test_another_name_may_go_while_a_container_uses_the_image(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1", "b:1")
    house.use(image, running=True)
    assert await house.remove("a:1") == ["a:1"]


async def test_a_running_container_cannot_be_forced_away(house: House) -> None:
    image = sample(BASE)
    await house.put(image, "a:1")
    house.use(image, running=True)
    with pytest.raises(Conflict) as caught:
        await house.remove(image.id[7:20], force=True)
    assert caught.value.message == (
        f"conflict: unable to delete {image.id[7:19]} (cannot be forced) - "
        "image is being used by running container cccccccccccc"
    )
    assert (await house.service.resolve("a:1")).id == image.id


async def test_an_id_that_a_stopped_container_uses_must_be_forced(house: House) -> None:
    image = sample(BASE)
    await house.put(image)
    house.use(image, running=False)
    with pytest.raises(Conflict, match=r"must be forced.*used by stopped container cccccccccccc"):
        await house.remove(image.id)
    assert await house.remove(image.id, force=True) == [f"-{image.id}"]


async def test_what_is_not_there(house: House) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        await house.remove("nosuch")


async def test_a_layer_that_a_pull_holds_stays(house: House) -> None:
    image = sample(BASE, ONE)
    await house.put(image, "a:1")
    async with house.service.layers.hold(image.chain[:1]):
        assert await house.remove("a:1") == ["a:1", f"-{image.id}", f"-{image.chain[1]}"]
    assert set(house.fake.layers) == {image.chain[0]}


async def test_a_port_layer_that_fails_in_between_leaves_what_a_restart_puts_right(house: House) -> None:
    """Killed at every step of a removal: the image is there, or all of it goes at the next start."""
    image = sample(BASE, ONE)
    for step in range(4):
        await house.put(image, "a:1")
        house.fake.before = failing_at(step)
        with pytest.raises(ApiError, match="killed"):
            await house.remove("a:1")
        house.fake.before = None
        house.service.catalog = Catalog(
            house.service.port, house.service.layers, Provenance(house.service.port)
        )
        index = await house.service.catalog.index()
        if index.get(image.id) is None:
            assert (house.fake.layers, house.fake.keys) == ({}, {})
        else:
            assert set(house.fake.layers) == set(image.chain)
            assert index.references(image.id) in ([], [parse_reference("a:1")])


def failing_at(step: int) -> Hook:
    """Refuse the `step`-th thing that would be taken away."""
    count = iter(range(100))

    async def fail(what: str, name: str) -> None:
        if what in ("delete", "remove") and next(count) == step:
            raise RuntimeError("killed")

    return fail


@pytest.mark.parametrize(
    ("names", "single"),
    [
        ([], False),
        (["a:1"], True),
        ([f"a@{DIGEST}"], True),
        (["a:1", f"a@{DIGEST}"], True),
        (["a:1", "a:2"], False),
        (["a:1", f"b@{DIGEST}"], False),
        (["a:1", "b:1"], False),
    ],
)
def test_single_references(names: list[str], single: bool) -> None:
    assert is_single([parse_reference(name) for name in names]) is single
