import asyncio
import errno
import gzip
import json
import os
from typing import Any

import pytest

from engine.http import ApiError
from engine.images.progress import Progress
from engine.images.service import ImageService
from engine.registry.credentials import Credentials
from engine.registry.platform import parse_platform
from engine.registry.reference import parse_reference
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import DOCKER_LIST, OCI_INDEX, Sample, sample, tar, zstd
from tests.engine.registry.server import Answer, Asked, FakeRegistry, digest_of, error
from vch.config import Registry

BASE = tar(base=b"b" * 5000)
MIDDLE = tar(middle=os.urandom(200_000))
TOP = tar(top=b"t")


async def pull(
    service: ImageService,
    name: str,
    platform: str = "",
    credentials: Credentials | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Pull, and give back the messages."""
    progress = progress or Progress()
    await service.puller.pull(
        parse_reference(name),
        parse_platform(platform) if platform else None,
        credentials or Credentials(),
        progress,
    )
    progress.close()
    return await messages(progress)


async def messages(progress: Progress) -> list[dict[str, Any]]:
    progress.close()
    lines = b"".join([line async for line in progress.lines()])
    return [json.loads(line) for line in lines.splitlines()]


def states(said: list[dict[str, Any]], name: str) -> list[str]:
    """What one layer went through, repeats aside."""
    found: list[str] = []
    for message in said:
        if message.get("id") == name and found[-1:] != [message["status"]]:
            found.append(message["status"])
    return found


@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("compress", [gzip.compress, zstd, bytes])
async def test_an_image_comes_whole_and_in_order(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry, docker: bool, compress: Any
) -> None:
    image = sample(BASE, MIDDLE, TOP, docker=docker, compress=compress)
    digest = image.put(registry, "a/b", "1")
    said = await pull(service, f"{registry.host}/a/b:1")
    assert fake.done("put") == image.chain
    assert [fake.tars[chain] for chain in image.chain] == [BASE, MIDDLE, TOP]
    assert [fake.layers[chain].parent for chain in image.chain] == ["", *image.chain[:2]]
    record = await service.resolve(f"{registry.host}/a/b:1")
    assert (record.id, record.layer, record.size) == (image.id, image.chain[-1], sum(map(len, image.layers)))
    assert record.repo_tags == [f"{registry.host}/a/b:1"]
    assert record.repo_digests == [f"{registry.host}/a/b@{digest}"]
    assert said[0] == {"status": f"Pulling from {registry.host}/a/b", "id": "1"}
    assert said[-2:] == [
        {"status": f"Digest: {digest}"},
        {"status": f"Status: Downloaded newer image for {registry.host}/a/b:1"},
    ]
    for blob in image.blobs:
        found = states(said, digest_of(blob)[7:19])
        assert found[0] == "Pulling fs layer"
        assert found[-1] == "Pull complete"
        kept = [word for word in found if word in ("Downloading", "Verifying Checksum", "Download complete")]
        assert kept == ["Downloading", "Verifying Checksum", "Download complete"]


async def test_a_second_pull_fetches_nothing(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(BASE, TOP)
    image.put(registry, "a", "1")
    await pull(service, f"{registry.host}/a:1")
    before = len(registry.paths("/blobs/"))
    said = await pull(service, f"{registry.host}/a:1")
    assert registry.paths("/blobs/")[before:] == [f"/v2/a/blobs/{image.id}"]
    assert [message["status"] for message in said[1:3]] == ["Already exists"] * 2
    assert said[-1] == {"status": f"Status: Image is up to date for {registry.host}/a:1"}


async def test_shared_layers_are_fetched_once(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    sample(BASE, MIDDLE).put(registry, "a", "1")
    other = sample(BASE, TOP)
    other.put(registry, "a", "2")
    await pull(service, f"{registry.host}/a:1")
    await pull(service, f"{registry.host}/a:2")
    assert len(registry.paths(digest_of(other.blobs[0]))) == 1
    assert (await service.resolve(f"{registry.host}/a:2")).shared_size == len(BASE)


async def test_by_digest_leaves_no_tag(service: ImageService, registry: FakeRegistry) -> None:
    image = sample(BASE)
    digest = image.put(registry, "a", "1")
    said = await pull(service, f"{registry.host}/a@{digest}")
    assert said[0]["id"] == digest
    record = await service.resolve(f"{registry.host}/a@{digest}")
    assert (record.repo_tags, record.repo_digests) == ([], [f"{registry.host}/a@{digest}"])


async def test_a_tag_that_moves_leaves_the_old_image_dangling(
    service: ImageService, registry: FakeRegistry
) -> None:
    old, new = sample(BASE), sample(TOP)
    old.put(registry, "a", "1")
    await pull(service, f"{registry.host}/a:1")
    new.put(registry, "a", "1")
    said = await pull(service, f"{registry.host}/a:1")
    assert "Downloaded newer image" in said[-1]["status"]
    assert (await service.resolve(f"{registry.host}/a:1")).id == new.id
    assert (await service.resolve(old.id)).repo_tags == []


def index_of(registry: FakeRegistry, media_type: str, *entries: tuple[Sample, dict[str, str] | None]) -> str:
    manifests = []
    for image, platform in entries:
        image.put(registry, "multi", image.digest)
        manifests.append(
            {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}
            | ({"platform": platform} if platform else {})
        )
    return registry.manifest(
        "multi", "1", {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}, media_type
    )


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
async def test_an_index_gives_the_image_of_the_platform(
    service: ImageService, registry: FakeRegistry, media_type: str
) -> None:
    docker = media_type == DOCKER_LIST
    amd, arm = sample(BASE, docker=docker), sample(TOP, architecture="arm64", docker=docker)
    digest = index_of(
        registry,
        media_type,
        (sample(MIDDLE, docker=docker), {"os": "unknown", "architecture": "unknown"}),
        (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        (amd, {"os": "linux", "architecture": "amd64"}),
    )
    await pull(service, f"{registry.host}/multi:1")
    record = await service.resolve(f"{registry.host}/multi:1")
    assert (record.id, record.repo_digests) == (amd.id, [f"{registry.host}/multi@{digest}"])
    await pull(service, f"{registry.host}/multi:1", "linux/arm64")
    assert (await service.resolve(f"{registry.host}/multi:1")).architecture == "arm64"
    with pytest.raises(ApiError, match="no matching manifest for linux/s390x in the manifest list") as caught:
        await pull(service, f"{registry.host}/multi:1", "linux/s390x")
    assert caught.value.status == 404


async def test_a_single_image_of_another_platform_than_asked_for_is_refused(
    service: ImageService, registry: FakeRegistry
) -> None:
    sample(BASE).put(registry, "a", "1")
    with pytest.raises(ApiError, match="wanted linux/arm64, actual: linux/amd64"):
        await pull(service, f"{registry.host}/a:1", "linux/arm64")


async def test_what_does_not_exist_is_404_before_any_message(
    service: ImageService, registry: FakeRegistry
) -> None:
    progress = Progress()
    with pytest.raises(ApiError) as caught:
        await pull(service, f"{registry.host}/a:nosuch", progress=progress)
    assert caught.value.status == 404
    assert caught.value.message == (
        f"manifest for {registry.host}/a:nosuch not found: manifest unknown: manifest unknown"
    )
    assert not progress.started


async def test_a_denied_repository_is_404_in_dockers_words(
    service: ImageService, registry: FakeRegistry
) -> None:
    registry.rules.append(lambda asked: error(403, "DENIED", "requested access to the resource is denied"))
    with pytest.raises(ApiError) as caught:
        await pull(service, f"{registry.host}/a:1")
    assert caught.value.status == 404
    assert caught.value.message == (
        f"pull access denied for {registry.host}/a, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


async def test_a_cut_layer_goes_on_where_it_was_cut(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(MIDDLE)
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[0])
    cuts = [150_000, 30_000]

    def cut(asked: Asked) -> Answer | None:
        if blob not in asked.path or not cuts:
            return None
        answer = registry.part(asked, registry.blobs[blob])
        answer.cut = cuts.pop(0)
        return answer

    registry.rules.append(cut)
    service.puller._transfers.sleep = lambda seconds: asyncio.sleep(0)
    said = await pull(service, f"{registry.host}/a:1")
    ranges = [asked.headers.get("range") for asked in registry.asked if blob in asked.path]
    assert ranges == [None, "bytes=150000-", "bytes=180000-"]
    assert fake.tars[image.chain[0]] == MIDDLE
    assert "Retrying in 1 second" in states(said, blob[7:19])


async def test_a_registry_that_trickles(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(MIDDLE, BASE)
    image.put(registry, "a", "1")
    registry.rules.append(
        lambda asked: (
            Answer(body=registry.blobs[asked.path.rpartition("/")[2]], trickle=999)
            if "/blobs/" in asked.path
            else None
        )
    )
    await pull(service, f"{registry.host}/a:1")
    assert [fake.tars[chain] for chain in image.chain] == [MIDDLE, BASE]


async def test_a_server_without_ranges_is_read_again_from_the_start(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(MIDDLE)
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[0])
    answers = [Answer(body=image.blobs[0], cut=100_000)]
    registry.rules.append(
        lambda asked: (
            (answers.pop() if answers else Answer(body=image.blobs[0])) if blob in asked.path else None
        )
    )
    service.puller._transfers.sleep = lambda seconds: asyncio.sleep(0)
    await pull(service, f"{registry.host}/a:1")
    assert fake.tars[image.chain[0]] == MIDDLE


async def test_a_registry_that_dies_in_a_layer_leaves_no_image(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(BASE, MIDDLE, TOP)
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[1])
    registry.rules.append(lambda asked: Answer(body=image.blobs[1], cut=0) if blob in asked.path else None)
    service.puller._transfers.sleep = lambda seconds: asyncio.sleep(0)
    with pytest.raises(ApiError, match=r"peer closed connection|unexpected EOF"):
        await pull(service, f"{registry.host}/a:1")
    assert len(registry.paths(blob)) == 5
    assert image.chain[1] not in fake.layers
    assert not fake.keys
    await service.catalog.sweep()
    assert not fake.layers


@pytest.mark.parametrize("wrong", [0, 1])
async def test_a_layer_with_the_wrong_digest_is_never_committed(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry, wrong: int
) -> None:
    """The first layer streams, the second lies in the spool: both are checked before they are kept."""
    image = sample(MIDDLE, tar(second=os.urandom(50_000)))
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[wrong])
    other = gzip.compress(tar(evil=b"e" * 100))
    padded = other + bytes(len(image.blobs[wrong]) - len(other))
    registry.blobs[blob] = padded
    with pytest.raises(ApiError, match=f"verification failed for digest {blob}"):
        await pull(service, f"{registry.host}/a:1")
    assert image.chain[wrong] not in fake.layers
    assert not fake.keys


async def test_a_layer_that_is_not_its_diff_id_is_refused_by_the_port_layer(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(BASE)
    image.blobs[0] = gzip.compress(TOP)
    manifest = json.loads(image.manifest)
    manifest["layers"][0] |= {"digest": digest_of(image.blobs[0]), "size": len(image.blobs[0])}
    image.manifest = json.dumps(manifest).encode()
    image.put(registry, "a", "1")
    with pytest.raises(ApiError, match="has the digest"):
        await pull(service, f"{registry.host}/a:1")
    assert not fake.layers
    assert not fake.keys


async def test_two_pulls_of_one_image_share_its_layers(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(BASE, MIDDLE)
    image.put(registry, "a", "1")
    image.put(registry, "a", "2")
    release = asyncio.Event()
    blob = digest_of(image.blobs[1])
    registry.rules.append(
        lambda asked: Answer(body=image.blobs[1], wait=release) if blob in asked.path else None
    )
    one, two = Progress(), Progress()
    first = asyncio.create_task(pull(service, f"{registry.host}/a:1", progress=one))
    second = asyncio.create_task(pull(service, f"{registry.host}/a:2", progress=two))
    await one.wait()
    await two.wait()
    release.set()
    said = await first, await second
    assert len(registry.paths(blob)) == 1
    assert fake.done("put") == image.chain
    for messages_ in said:
        assert states(messages_, blob[7:19])[-1] == "Pull complete"


async def test_a_cancelled_pull_stops_and_leaves_nothing_half(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(MIDDLE)
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[0])
    asked_for = asyncio.Event()

    def stall(asked: Asked) -> Answer | None:
        if blob not in asked.path:
            return None
        asked_for.set()
        return Answer(body=image.blobs[0], wait=asyncio.Event())

    registry.rules.append(stall)
    task = asyncio.create_task(pull(service, f"{registry.host}/a:1"))
    await asked_for.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not fake.layers
    registry.rules.clear()
    await pull(service, f"{registry.host}/a:1")
    assert fake.done("put") == image.chain


async def test_one_of_two_pulls_goes_away_and_the_other_finishes(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(MIDDLE)
    image.put(registry, "a", "1")
    blob = digest_of(image.blobs[0])
    release, asked_for = asyncio.Event(), asyncio.Event()

    def stall(asked: Asked) -> Answer | None:
        if blob not in asked.path:
            return None
        asked_for.set()
        return Answer(body=image.blobs[0], wait=release)

    registry.rules.append(stall)
    first = asyncio.create_task(pull(service, f"{registry.host}/a:1"))
    await asked_for.wait()
    progress = Progress()
    second = asyncio.create_task(pull(service, f"{registry.host}/a:1", progress=progress))
    while len(registry.paths(image.id)) < 2:
        await progress.wait()
        await asyncio.sleep(0)
    while len(service.puller._transfers._running[image.chain[0]]._watchers) < 2:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    release.set()
    await second
    assert len(registry.paths(blob)) == 1
    assert fake.done("put") == image.chain


async def test_without_room_in_the_spool_layers_stream_in_their_turn(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    service.puller._transfers.spool._free = 0
    image = sample(BASE, MIDDLE, TOP)
    image.put(registry, "a", "1")
    await pull(service, f"{registry.host}/a:1")
    assert fake.done("put") == image.chain


async def test_a_full_disk_ends_the_pull_and_says_so(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = sample(BASE, MIDDLE)
    image.put(registry, "a", "1")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ApiError, match=r"cannot spool in .*/spool: no space left on device"):
        await pull(service, f"{registry.host}/a:1")
    assert image.chain[1] not in fake.layers
    assert not fake.keys
    assert service.puller._transfers.spool._free == 4 << 30


async def test_a_registry_that_is_not_allowed(service: ImageService, registry: FakeRegistry) -> None:
    service.puller._registry = Registry(allowed=("r.example",))
    with pytest.raises(
        ApiError, match=r"Access denied to unauthorized registry .* allows only r\.example"
    ) as caught:
        await pull(service, f"{registry.host}/a:1")
    assert caught.value.status == 403
    assert registry.asked == []


async def test_more_layers_than_slots(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(*(tar(**{f"file{n}": os.urandom(1000)}) for n in range(20)))
    image.put(registry, "a", "1")
    said = await pull(service, f"{registry.host}/a:1")
    assert fake.done("put") == image.chain
    assert any(message["status"] == "Waiting" for message in said)
    assert service.puller._transfers.spool._free == 4 << 30


async def test_the_order_of_writing_is_layers_image_names(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    sample(BASE, TOP).put(registry, "a", "1")
    await pull(service, f"{registry.host}/a:1")
    written = [
        what if what == "put" else name.partition("/")[0] for what, name in fake.calls if what != "begin"
    ]
    assert written == ["put", "put", "images", "tags", "digests", "manifests", "blobs", "blobs"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "unsupported manifest schema version"),
        (b'{"schemaVersion":1}', "schema 1 is not supported"),
        (b'{"schemaVersion":2}', "config is not a descriptor"),
        (b'{"schemaVersion":2,"layers":[],"manifests":[]}', "ambiguous"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schemaVersion":2,"mediaType":"text/plain"}', "unsupported manifest media type"),
    ],
)
async def test_a_malformed_manifest_is_refused(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry, body: bytes, words: str
) -> None:
    registry.manifest("a", "1", body, "")
    with pytest.raises(ApiError, match=words):
        await pull(service, f"{registry.host}/a:1")
    assert not fake.layers


async def test_a_manifest_by_digest_is_verified_before_it_is_parsed(
    service: ImageService, registry: FakeRegistry
) -> None:
    image = sample(BASE)
    image.put(registry, "a", "1")
    registry.manifests["a", image.digest] = (image.media_type, b"not even JSON")
    with pytest.raises(ApiError, match=f"expected {image.digest}"):
        await pull(service, f"{registry.host}/a@{image.digest}")


async def test_a_manifest_without_end_is_cut_off(service: ImageService, registry: FakeRegistry) -> None:
    registry.manifest("a", "1", b" " * (5 << 20), "")
    with pytest.raises(ApiError, match="larger than 4194304 bytes"):
        await pull(service, f"{registry.host}/a:1")


async def test_a_blob_longer_than_its_descriptor_is_cut_off(
    service: ImageService, fake: FakePortLayer, registry: FakeRegistry
) -> None:
    image = sample(BASE)
    image.put(registry, "a", "1")
    registry.blobs[digest_of(image.blobs[0])] = image.blobs[0] + b"more"
    with pytest.raises(ApiError, match=r"larger than its|verification failed"):
        await pull(service, f"{registry.host}/a:1")
    assert not fake.layers
