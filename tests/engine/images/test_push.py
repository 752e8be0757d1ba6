"""Pushing: what moves, what does not, and what happens when the connection breaks."""

import gzip
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.http import ApiError
from engine.images.progress import Progress
from engine.images.service import ImageService
from engine.registry.credentials import Credentials
from engine.registry.reference import Reference, parse_reference
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import DOCKER_MANIFEST, OCI_MANIFEST, Sample, sample, tar
from tests.engine.registry.server import Answer, Asked, FakeRegistry, digest_of, error


class Taking:
    """Makes a `FakeRegistry` take uploads; blobs are per repository, as in a real one."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.has: dict[str, set[str]] = {}  # repository -> digests
        self.uploads: dict[str, bytearray] = {}
        self.moved = 0
        self.break_at = -1  # cut the next PATCH after so many bytes
        registry.rules.append(self.answer)

    def answer(self, asked: Asked) -> Answer | None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(asked.target).query).items()}
        repository, uploading, name = asked.path.removeprefix("/v2/").partition("/blobs/uploads/")
        if uploading and asked.method == "POST":
            if query.get("mount") in self.has.get(query.get("from", ""), ()):
                self.has.setdefault(repository, set()).add(query["mount"])
                return Answer(status=201)
            number = str(len(self.uploads))
            self.uploads[number] = bytearray()
            return Answer(status=202, headers={"Location": f"{asked.path}{number}?state=x"})
        if uploading:
            data = self.uploads[name]
            here = {"Location": f"{asked.path}?state={len(data)}", "Range": f"0-{len(data) - 1}"}
            if asked.method == "PATCH":
                if self.break_at >= 0:
                    data += asked.body[: self.break_at]
                    self.break_at = -1
                    return error(503, "", "overloaded")
                assert asked.headers["content-range"] == f"{len(data)}-{len(data) + len(asked.body) - 1}"
                data += asked.body
                return Answer(status=202, headers=here)
            if asked.method == "PUT":
                assert digest_of(bytes(data)) == query["digest"]
                self.moved += len(data)
                self.registry.blob(bytes(data))
                self.has.setdefault(repository, set()).add(query["digest"])
                return Answer(status=201)
            return Answer(status=204, headers=here)
        if asked.method == "HEAD":
            repository, _, digest = asked.path.removeprefix("/v2/").partition("/blobs/")
            return Answer(status=200 if digest in self.has.get(repository, ()) else 404)
        if asked.method == "PUT":
            repository, _, tag = asked.path.removeprefix("/v2/").partition("/manifests/")
            self.registry.manifest(repository, tag, asked.body, asked.headers["content-type"])
            return Answer(status=201)
        return None

    def give(self, image: Sample, repository: str, tag: str) -> None:
        image.put(self.registry, repository, tag)
        self.has.setdefault(repository, set()).update(
            digest_of(blob) for blob in (image.config, *image.blobs)
        )


@pytest.fixture
def taking(registry: FakeRegistry) -> Taking:
    return Taking(registry)


def name(registry: FakeRegistry, text: str) -> Reference:
    return parse_reference(f"{registry.host}/{text}")


async def pushed(service: ImageService, reference: Reference) -> list[dict]:
    progress = Progress()
    await service.pusher.push(reference, Credentials(), progress)
    progress.close()
    return [json.loads(line) for lines in [b async for b in progress.lines()] for line in lines.splitlines()]


def states(messages: list[dict]) -> list[str]:
    return [
        message["status"]
        for message in messages
        if message.get("progressDetail") == {} and "status" in message
    ]


@pytest.mark.parametrize("docker", [True, False])
async def test_a_pulled_image_goes_back_without_a_byte(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody: Credentials, docker: bool
) -> None:
    image = sample(tar(a=b"1"), tar(b=b"2"), docker=docker)
    taking.give(image, "it", "1")
    await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    messages = await pushed(service, name(registry, "it:1"))
    assert states(messages) == ["Preparing"] * 2 + ["Layer already exists"] * 2
    assert taking.moved == 0
    assert messages[0]["status"] == f"The push refers to repository [{registry.host}/it]"
    assert messages[-1]["aux"] == {"Tag": "1", "Digest": image.digest, "Size": len(image.manifest)}
    assert registry.manifests["it", "1"] == (DOCKER_MANIFEST if docker else OCI_MANIFEST, image.manifest)


async def test_another_repository_of_the_registry_takes_the_blobs_over(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody: Credentials
) -> None:
    image = sample(tar(a=b"1"))
    taking.give(image, "it", "1")
    await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    await service.tag(f"{registry.host}/it:1", name(registry, "deep/other:2"))
    messages = await pushed(service, name(registry, "deep/other:2"))
    assert states(messages)[-1] == "Mounted from it"
    assert taking.moved == len(image.config)
    assert registry.manifests["deep/other", "2"] == (OCI_MANIFEST, image.manifest)


async def test_another_registry_gets_the_same_layers_compressed_anew(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody: Credentials, fake: FakePortLayer
) -> None:
    image = sample(tar(a=b"1"), tar(b=b"2"), tar(a=b"1"))
    image.put(registry, "it", "1")
    await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    taking.has.clear()
    messages = await pushed(service, name(registry, "it:1"))
    assert sorted(states(messages)[3:]) == ["Pushed"] * 2
    _, data = registry.manifests["it", "1"]
    manifest = json.loads(data)
    assert manifest["config"]["digest"] == image.id
    layers = [gzip.decompress(registry.blobs[layer["digest"]]) for layer in manifest["layers"]]
    assert layers == image.layers
    again = await pushed(service, name(registry, "it:1"))
    assert states(again)[3:] == ["Layer already exists"] * 3
    assert again[-1]["aux"]["Digest"] == digest_of(data)


async def test_an_upload_goes_on_where_it_was_cut(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody: Credentials
) -> None:
    image = sample(tar(a=b"1" * 5000))
    image.put(registry, "it", "1")
    await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    taking.break_at = 20
    await pushed(service, name(registry, "it:1"))
    patches = [asked.headers["content-range"] for asked in registry.asked if asked.method == "PATCH"]
    assert patches[0].startswith("0-")
    assert patches[1].startswith("20-")


async def test_what_cannot_be_pushed(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody
) -> None:
    with pytest.raises(ApiError, match="An image does not exist locally with the tag"):
        await pushed(service, name(registry, "it"))
    taking.give(sample(tar(a=b"1")), "it", "1")
    await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    with pytest.raises(ApiError, match=f"tag does not exist: {registry.host}/it:2"):
        await pushed(service, name(registry, "it:2"))
    denied = error(403, "DENIED", "requested access to the resource is denied")
    registry.rules.append(lambda asked: denied if asked.method == "POST" else None)
    taking.has.clear()
    with pytest.raises(ApiError, match="denied: requested access to the resource is denied"):
        await pushed(service, name(registry, "it:1"))


async def test_what_is_known_of_an_image_goes_with_it(
    service: ImageService, registry: FakeRegistry, taking: Taking, nobody: Credentials, fake: FakePortLayer
) -> None:
    taking.give(sample(tar(a=b"1")), "it", "1")
    image = await service.puller.pull(name(registry, "it:1"), None, nobody, Progress())
    known = {key.partition("/")[0] for key in fake.keys}
    assert {"blobs", "manifests"} <= known
    index = await service.catalog.index()
    for reference in index.references(image.id):
        await service.catalog.unname(reference)
    await service.catalog.forget(image.id)
    assert not [key for key in fake.keys if key.startswith(("blobs/", "manifests/"))]
