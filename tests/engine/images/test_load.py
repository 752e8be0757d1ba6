import contextlib
import errno
import gzip
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http import ApiError, Disconnected
from engine.images.archive import read_archive
from engine.images.progress import Progress
from engine.images.service import ImageService
from engine.images.tarindex import index_tar
from engine.registry.errors import BadContent
from engine.registry.platform import DEFAULT_PLATFORM, parse_platform
from engine.registry.reference import parse_reference
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import OCI_INDEX, OCI_MANIFEST, Sample, archive, sample, tar, zstd
from tests.engine.registry.server import digest_of

BASE, TOP = tar(base=b"b" * 5000), tar(top=os.urandom(100_000))


async def chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def load(
    service: ImageService, data: bytes, *, quiet: bool = False, platform: str = ""
) -> list[dict[str, Any]]:
    progress = Progress()
    wanted = parse_platform(platform) if platform else None
    await service.loader.load(chunks(data), wanted, progress, quiet=quiet)
    progress.close()
    lines = b"".join([line async for line in progress.lines()])
    return [json.loads(line) for line in lines.splitlines()]


def docker_archive(*images: tuple[Sample, list[str]], last: bool = True, compressed: bool = False) -> bytes:
    files: list[tuple[str, bytes]] = []
    manifest = []
    for image, tags in images:
        layers = image.blobs if compressed else image.layers
        names = [f"{digest_of(layer)[7:]}/layer.tar" for layer in layers]
        files += [(f"{image.id[7:]}.json", image.config), *zip(names, layers, strict=True)]
        manifest.append({"Config": f"{image.id[7:]}.json", "RepoTags": tags or None, "Layers": names})
    entry = ("manifest.json", json.dumps(manifest).encode())
    return archive([*files, entry] if last else [entry, *files])


def oci_archive(*entries: tuple[Sample, dict[str, str]], **extra: Any) -> bytes:
    blobs: dict[str, bytes] = {}
    manifests = []
    for image, annotations in entries:
        for blob in (image.config, image.manifest, *image.blobs):
            blobs[f"blobs/sha256/{digest_of(blob)[7:]}"] = blob
        manifests.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": annotations,
            }
        )
    index = {"schemaVersion": 2, "manifests": manifests} | extra
    return archive(
        [
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            *blobs.items(),
            ("index.json", json.dumps(index).encode()),
        ]
    )


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstd])
async def test_what_docker_save_wrote(
    service: ImageService, fake: FakePortLayer, last: bool, wrap: Any
) -> None:
    image = sample(BASE, TOP, docker=True)
    said = await load(service, wrap(docker_archive((image, ["a:1", "b/c:2"]), last=last)))
    assert fake.done("put") == image.chain
    assert [fake.tars[chain] for chain in image.chain] == [BASE, TOP]
    record = await service.resolve("a:1")
    assert (record.id, record.repo_tags) == (image.id, ["b/c:2", "a:1"])
    assert said[-2:] == [{"stream": "Loaded image: a:1\n"}, {"stream": "Loaded image: b/c:2\n"}]
    assert {message["status"] for message in said[:-2]} == {"Loading layer"}


async def test_layers_in_the_archive_may_be_compressed(service: ImageService, fake: FakePortLayer) -> None:
    image = sample(BASE, TOP)
    await load(service, docker_archive((image, []), compressed=True))
    assert [fake.tars[chain] for chain in image.chain] == [BASE, TOP]


async def test_quiet_says_only_what_was_loaded(service: ImageService) -> None:
    image = sample(BASE)
    said = await load(service, docker_archive((image, [])), quiet=True)
    assert said == [{"stream": f"Loaded image ID: {image.id}\n"}]


async def test_several_images_and_a_name_that_moves(service: ImageService, fake: FakePortLayer) -> None:
    one, two = sample(BASE), sample(BASE, TOP)
    await load(service, docker_archive((one, ["a:1"])))
    said = await load(service, docker_archive((one, []), (two, ["a:1"])), quiet=True)
    assert [message["stream"] for message in said] == [
        f"Loaded image ID: {one.id}\n",
        f"The image a:1 already exists, renaming the old one with ID {one.id} to empty string\n",
        "Loaded image: a:1\n",
    ]
    assert fake.done("put") == two.chain
    assert (await service.resolve("a:1")).id == two.id


@pytest.mark.parametrize(
    ("annotations", "tags"),
    [
        ({"org.opencontainers.image.ref.name": "a:1"}, ["a:1"]),
        ({"org.opencontainers.image.ref.name": "latest"}, []),
        (
            {"io.containerd.image.name": "docker.io/library/a:2", "org.opencontainers.image.ref.name": "2"},
            ["a:2"],
        ),
        ({"org.opencontainers.image.ref.name": "No:Name:1"}, []),
        ({}, []),
    ],
)
async def test_an_oci_layout(
    service: ImageService, fake: FakePortLayer, annotations: dict[str, str], tags: list[str]
) -> None:
    image = sample(BASE, TOP, compress=zstd)
    await load(service, oci_archive((image, annotations)))
    assert [fake.tars[chain] for chain in image.chain] == [BASE, TOP]
    assert (await service.resolve(image.id)).repo_tags == tags


async def test_an_oci_layout_with_an_index_inside_gives_our_platform(
    service: ImageService, fake: FakePortLayer
) -> None:
    ours, other = sample(BASE), sample(TOP, architecture="arm64")
    inner = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
            for image, architecture in ((other, "arm64"), (ours, "amd64"))
        ],
    }
    data = json.dumps(inner).encode()
    blobs = [
        data,
        *(blob for image in (ours, other) for blob in (image.config, image.manifest, *image.blobs)),
    ]
    top = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": OCI_INDEX,
                "digest": digest_of(data),
                "size": len(data),
                "annotations": {"io.containerd.image.name": "docker.io/library/m:1"},
            }
        ],
    }
    files = [(f"blobs/sha256/{digest_of(blob)[7:]}", blob) for blob in blobs]
    whole = archive([*files, ("index.json", json.dumps(top).encode())])
    await load(service, whole)
    assert (await service.resolve("m:1")).id == ours.id
    await load(service, whole, platform="linux/arm64")
    assert (await service.resolve("m:1")).id == other.id
    with pytest.raises(ApiError, match="no image for linux/s390x"):
        await load(service, whole, platform="linux/s390x")


def damaged(image: Sample, **changes: Any) -> bytes:
    entry: dict[str, Any] = {
        "Config": "config.json",
        "RepoTags": ["a:1"],
        "Layers": [f"{number}.tar" for number in range(len(image.layers))],
    } | changes
    files = [("config.json", image.config)]
    files += [(f"{number}.tar", layer) for number, layer in enumerate(image.layers)]
    return archive([*files, ("manifest.json", json.dumps([entry]).encode())])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a tar"),
        (b"garbage" * 1000, "not a tar|malformed"),
        (archive([("other", b"")]), "neither manifest.json nor index.json"),
        (archive([("manifest.json", b"[")]), "not valid JSON"),
        (archive([("manifest.json", b"{}")]), "not a list of images"),
        (archive([("manifest.json", b"[]")]), "has no image"),
        (archive([("manifest.json", b"[7]")]), "not a list of images"),
        (archive([("manifest.json", b"[{}]")]), "malformed image"),
        (archive([("index.json", b"{}")]), "schema version"),
        (archive([("index.json", b'{"schemaVersion":2,"manifests":[]}')]), "has no image"),
        (damaged(sample(BASE), Config="nothing.json"), "no file 'nothing.json'"),
        (damaged(sample(BASE), Config="../../etc/passwd"), "no file"),
        (damaged(sample(BASE), Layers=["x.tar"]), "no file 'x.tar'"),
        (damaged(sample(BASE), Layers=[]), "1 diff_ids and 0 layers"),
        (damaged(sample(BASE), RepoTags=["UPPER:1"]), "must be lowercase"),
        (damaged(sample(BASE), RepoTags=["notag"]), "invalid tag 'notag'"),
        (damaged(sample(BASE), RepoTags="a:1"), "malformed image"),
        (damaged(sample(BASE, os="windows")), "cannot load windows image"),
        (gzip.compress(docker_archive((sample(BASE), [])))[:-9], "ends too early"),
    ],
)
async def test_hostile_archives_are_refused_and_leave_nothing(
    service: ImageService, fake: FakePortLayer, data: bytes, words: str
) -> None:
    with pytest.raises(ApiError, match=words):
        await load(service, data)
    assert not fake.layers
    assert not fake.keys


async def test_a_layer_that_is_not_its_diff_id(service: ImageService, fake: FakePortLayer) -> None:
    image = sample(BASE)
    image.layers[0] = TOP
    with pytest.raises(ApiError, match="has the digest"):
        await load(service, damaged(image))
    assert not fake.layers


async def test_an_oci_blob_with_the_wrong_digest(service: ImageService, fake: FakePortLayer) -> None:
    image = sample(BASE)
    name = digest_of(image.blobs[0])
    manifest = image.manifest
    image.blobs[0] = gzip.compress(BASE, 1)
    files = [
        (f"blobs/sha256/{image.id[7:]}", image.config),
        (f"blobs/sha256/{digest_of(manifest)[7:]}", manifest),
        (f"blobs/sha256/{name[7:]}", image.blobs[0] + b""),
    ]
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(manifest)}],
    }
    with pytest.raises(ApiError, match=f"verification failed for digest {name}"):
        await load(service, archive([*files, ("index.json", json.dumps(index).encode())]))
    assert not fake.layers


async def test_a_client_that_goes_away_leaves_nothing(service: ImageService, fake: FakePortLayer) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield docker_archive((sample(BASE), ["a:1"]))[:3000]
        raise Disconnected("gone")

    with pytest.raises(Disconnected, match="gone"):
        await service.loader.load(cut(), None, Progress(), quiet=True)
    assert not fake.calls


async def test_a_full_disk_is_named(
    service: ImageService, fake: FakePortLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ApiError, match=r"cannot spool in .*/spool: no space left on device"):
        await load(service, docker_archive((sample(BASE), ["a:1"])))
    assert not fake.calls


documents = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["config.json", "0.tar", "a:1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Config", "RepoTags", "Layers", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(documents)
def test_any_manifest_json_is_read_or_refused(document: Any) -> None:
    data = archive(
        [
            ("config.json", sample(BASE).config),
            ("0.tar", BASE),
            ("manifest.json", json.dumps(document).encode()),
        ]
    )

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    with contextlib.suppress(BadContent):
        read_archive(index_tar(read, len(data)), read, None)


# ---------------------------------------------------------------------- import


async def import_(service: ImageService, data: bytes, **options: Any) -> str:
    wanted: dict[str, Any] = {
        "config": {},
        "platform": DEFAULT_PLATFORM,
        "comment": "Imported from -",
        "name": None,
    } | options
    return (await service.loader.import_(chunks(data), **wanted)).id


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstd])
async def test_a_bare_tar_becomes_an_image_of_one_layer(
    service: ImageService, fake: FakePortLayer, wrap: Any
) -> None:
    image_id = await import_(
        service, wrap(BASE), config={"Cmd": ["x"]}, name=parse_reference("me/it:1"), comment="hello"
    )
    record = await service.resolve("me/it:1")
    assert (record.id, record.layer, record.config) == (image_id, digest_of(BASE), {"Cmd": ["x"]})
    assert fake.tars[digest_of(BASE)] == BASE
    _, image = await service.find(image_id)
    assert (image.config.comment, image.config.history[0].comment) == ("hello", "hello")


async def test_importing_the_same_layer_twice_keeps_one(service: ImageService, fake: FakePortLayer) -> None:
    await import_(service, BASE)
    await import_(service, BASE, config={"User": "u"})
    assert fake.done("put") == [digest_of(BASE)]


async def test_importing_what_is_no_tar(service: ImageService, fake: FakePortLayer) -> None:
    with pytest.raises(ApiError, match="not a tar") as caught:
        await import_(service, b"no tar" * 1000)
    assert caught.value.status == 400
    assert not fake.calls
