"""Images made from images: they hide on lists, hold their parents, and take them along."""

import json
from urllib.parse import quote

import pytest

from engine.http import Conflict
from engine.images.index import StoredImage
from engine.images.removal import Removal
from engine.images.service import ImageService
from engine.registry.reference import parse_reference
from tests.engine.images.samples import tar
from tests.engine.images.test_making import image, pieces
from tests.engine.images.test_routes import Api, api  # noqa: F401


async def line(service: ImageService) -> list[StoredImage]:
    """base ← step ← last; the first and the last have names."""
    base = await service.maker.make(image(), pieces(tar(a=b"1")), [parse_reference("base:1")])
    step = await service.maker.make(image(base), pieces(tar(b=b"1")))
    last = await service.maker.make(image(step), pieces(tar(c=b"1")), [parse_reference("last:1")])
    return [base, step, last]


async def removed(service: ImageService, name: str, *, force: bool = False, prune: bool = True) -> list[str]:
    """The images that went, in order."""
    index = await service.catalog.index()
    before = {item.id for item in index}
    removal = Removal(service.catalog, index, {}, service.published, prune=prune)
    await removal.remove(name, force=force)
    return [record.deleted for record in removal.records if record.deleted in before]


async def test_steps_without_a_name_go_with_the_last_image(service: ImageService) -> None:
    base, step, last = await line(service)
    with pytest.raises(Conflict, match=r"cannot be forced\) - image has dependent child images"):
        await removed(service, step.id, force=True)
    assert await removed(service, "last:1") == [last.id, step.id]
    index = await service.catalog.index()
    assert [item.id for item in index] == [base.id]


async def test_noprune_keeps_them(service: ImageService) -> None:
    _, _, last = await line(service)
    assert await removed(service, "last:1", prune=False) == [last.id]


async def test_a_parent_that_loses_its_name_stays(service: ImageService) -> None:
    await line(service)
    assert await removed(service, "base:1") == []


async def test_lists_and_prune(service: ImageService, api: Api) -> None:  # noqa: F811
    base, step, last = await line(service)
    await service.maker.make(image(step), pieces(tar(d=b"1")))
    index = await service.catalog.index()
    dangling = next(item for item in index if item.id not in (base.id, step.id, last.id))

    async def listed(query: str) -> set[str]:
        return {row["Id"] for row in (await api("GET", f"/images/json?{query}")).json}

    assert await listed("") == {base.id, last.id, dangling.id}
    assert await listed("all=1") == {base.id, step.id, last.id, dangling.id}
    assert await listed(f"filters={quote(json.dumps({'dangling': ['true']}))}") == {dangling.id}
    pruned = (await api("POST", "/images/prune")).json
    assert pruned["ImagesDeleted"][0]["Deleted"] == dangling.id
    everything = quote(json.dumps({"dangling": ["false"]}))
    await api("POST", f"/images/prune?filters={everything}")
    assert not list(index)
