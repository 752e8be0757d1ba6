"""Saving: what names mean, and archives that are the same whenever the images are."""

import io
import json
import tarfile
from collections.abc import AsyncIterator

import pytest

from engine.http import NotFound
from engine.images.progress import Progress
from engine.images.save import archive, choose
from engine.images.service import ImageService
from engine.registry.reference import parse_reference
from tests.engine.images.samples import archive as packed
from tests.engine.images.samples import sample, tar

ONE = sample(tar(a=b"1" * 2000), tar(b=b"2"))
TWO = sample(tar(a=b"1" * 2000), created="2020-01-01T00:00:00Z")


async def stream(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def loaded(service: ImageService) -> None:
    files: list[tuple[str, bytes]] = []
    manifest = []
    for number, image in enumerate((ONE, TWO)):
        names = [f"{number}-{layer}.tar" for layer in range(len(image.layers))]
        files += [(f"{number}.json", image.config), *zip(names, image.layers, strict=True)]
        manifest.append({"Config": f"{number}.json", "RepoTags": [f"it:{number}"], "Layers": names})
    files.append(("manifest.json", json.dumps(manifest).encode()))
    await service.loader.load(stream(packed(files)), None, Progress(), quiet=True)
    await service.tag("it:1", parse_reference("other/name:x"))


async def saved(service: ImageService, *names: str) -> bytes:
    index = await service.catalog.index()
    return b"".join([chunk async for chunk in archive(choose(index, names), service.layers)])


async def test_names(service: ImageService) -> None:
    await loaded(service)
    index = await service.catalog.index()

    def chosen(*names: str) -> list[tuple[str, list[str]]]:
        return [(item.image.id, [name.familiar for name in item.names]) for item in choose(index, names)]

    assert chosen("it") == [(ONE.id, ["it:0"]), (TWO.id, ["it:1"])]
    assert chosen("it:1", "other/name:x") == [(TWO.id, ["it:1", "other/name:x"])]
    assert chosen(TWO.id, ONE.id[7:19]) == [(TWO.id, []), (ONE.id, [])]
    for missing in ("nothing", "it:2"):
        with pytest.raises(NotFound, match="reference does not exist"):
            chosen(missing)
    with pytest.raises(NotFound, match="No such image"):
        chosen("0" * 64)


async def test_the_archive_is_dockers_and_an_oci_layout(service: ImageService) -> None:
    await loaded(service)
    data = await saved(service, "it:0", "it:1")
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        content = {m.name: file.extractfile(m).read() for m in file if m.isfile()}  # type: ignore[union-attr]
    manifest = json.loads(content["manifest.json"])
    assert [item["RepoTags"] for item in manifest] == [["it:0"], ["it:1"]]
    assert [content[layer] for layer in manifest[0]["Layers"]] == ONE.layers
    assert content[manifest[0]["Config"]] == ONE.config
    index = json.loads(content["index.json"])
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == [
        "docker.io/library/it:0",
        "docker.io/library/it:1",
    ]
    oci = json.loads(content[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    assert [layer["digest"] for layer in oci["layers"]] == ONE.diff_ids
    assert json.loads(content["repositories"]) == {"it": {"0": ONE.diff_ids[1][7:], "1": TWO.diff_ids[0][7:]}}


async def test_saved_loaded_and_saved_again_is_the_same(service: ImageService) -> None:
    await loaded(service)
    first = await saved(service, "it", "other/name:x")
    index = await service.catalog.index()
    for image in list(index):
        for reference in index.references(image.id):
            await service.catalog.unname(reference)
        await service.catalog.forget(image.id)
    await service.loader.load(stream(first), None, Progress(), quiet=True)
    assert await saved(service, "it", "other/name:x") == first
