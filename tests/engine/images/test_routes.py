"""Docker's API of images over HTTP, with the room behind it whole."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from engine.app import build_application
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.document import Document
from engine.containers.index import ContainerIndex
from engine.context import Engine
from engine.events.hub import EventHub
from engine.http import HttpServer
from engine.images.service import ImageService
from engine.rpc import PortLayer
from portlayer import portlayer_pb2 as pb
from tests.definition.observer import Observer, observed
from tests.engine.conftest import Api
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.samples import OCI_INDEX, Sample, sample, tar
from tests.engine.images.test_load import docker_archive
from tests.engine.images.test_push import Taking
from tests.engine.registry.server import Answer, Asked, FakeRegistry, error
from vch.config import VchConfig

BASE, TOP, OTHER = tar(base=b"b" * 1000), tar(top=b"t"), tar(other=b"o" * 500)


@pytest.fixture
async def api(
    config: VchConfig, port: PortLayer, service: ImageService, events: EventHub, tmp_path: Path
) -> AsyncIterator[Api]:
    engine = Engine(
        config=config,
        port=port,
        images=service,
        events=events,
        containers=ContainerIndex(port),
        anonymous=AnonymousVolumes(port),
    )
    observer = Observer()
    server = HttpServer(observed(build_application(engine), observer))
    await server.listen_unix(tmp_path / "docker.sock", group="root")
    client = Api(tmp_path / "docker.sock")
    yield client
    await client.close()
    await server.close()
    assert not observer.violations, "\n".join(observer.violations)


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def happened(events: EventHub) -> list[tuple[str, str, dict[str, str]]]:
    return [(event.action, event.actor, dict(event.attributes)) for event in events.past()]


async def load(api: Api, *images: tuple[Sample, list[str]]) -> None:
    reply = await api("POST", "/images/load?quiet=1", raw=docker_archive(*images))
    assert reply.status == 200
    assert "error" not in lines(reply.body)[-1]


def filters(**wanted: list[str]) -> str:
    return "filters=" + quote(json.dumps(wanted))


async def names(api: Api, query: str = "") -> list[str]:
    rows = (await api("GET", f"/images/json?{query}")).json
    return sorted(tag for row in rows for tag in row["RepoTags"] or ["<none>"])


# ---------------------------------------------------------------------- pull


async def test_pull_streams_messages_and_tells_of_it(
    api: Api, registry: FakeRegistry, events: EventHub
) -> None:
    image = sample(BASE, labels={"k": "v"})
    image.put(registry, "a", "1")
    reply = await api("POST", f"/images/create?fromImage={registry.host}/a&tag=1")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    said = lines(reply.body)
    assert said[0] == {"status": f"Pulling from {registry.host}/a", "id": "1"}
    assert said[-1] == {"status": f"Status: Downloaded newer image for {registry.host}/a:1"}
    assert happened(events) == [("pull", f"{registry.host}/a:1", {"k": "v", "name": f"{registry.host}/a"})]


async def test_pull_by_digest_in_either_parameter(api: Api, registry: FakeRegistry) -> None:
    digest = sample(BASE).put(registry, "a", "1")
    for query in (f"fromImage={registry.host}/a&tag={digest}", f"fromImage={registry.host}/a@{digest}"):
        reply = await api("POST", f"/images/create?{query}")
        assert f"Status: Image is up to date for {registry.host}/a@{digest}" in reply.body.decode() or (
            f"Status: Downloaded newer image for {registry.host}/a@{digest}" in reply.body.decode()
        )


async def test_pull_without_a_tag_takes_all_of_them(api: Api, registry: FakeRegistry) -> None:
    for tag, layer in (("1", BASE), ("2", TOP)):
        sample(layer).put(registry, "a", tag)
    registry.rules.append(
        lambda asked: Answer(body=b'{"tags":["1","2"]}') if asked.path.endswith("/tags/list") else None
    )
    reply = await api("POST", f"/images/create?fromImage={registry.host}/a")
    assert reply.status == 200
    assert await names(api) == [f"{registry.host}/a:1", f"{registry.host}/a:2"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("fromImage=HOST/a&tag=no", 404, "manifest for HOST/a:no not found: manifest unknown"),
        ("fromImage=UPPER&tag=1", 400, "must be lowercase"),
        ("fromImage=a&tag=b c", 400, "invalid tag format"),
        ("fromImage=a&tag=1&platform=x/y/z/q", 400, "invalid platform"),
        ("", 400, "fromImage or fromSrc must be given"),
        ("fromImage=a&tag=1&changes=CMD x", 501, "changes goes with fromSrc"),
    ],
)
async def test_pulls_that_cannot_begin_have_a_status(
    api: Api, registry: FakeRegistry, query: str, status: int, words: str
) -> None:
    query = query.replace("HOST", registry.host).replace(" ", "%20")
    reply = await api("POST", f"/images/create?{query}")
    assert reply.status == status
    assert words.replace("HOST", registry.host) in reply.message


async def test_an_error_in_the_middle_is_a_message(
    api: Api, registry: FakeRegistry, fake: FakePortLayer
) -> None:
    image = sample(BASE)
    image.put(registry, "a", "1")
    registry.blobs.pop(next(iter(blob for blob in registry.blobs if blob != image.id)))
    reply = await api("POST", f"/images/create?fromImage={registry.host}/a&tag=1")
    assert reply.status == 200
    assert lines(reply.body)[-1]["errorDetail"]["message"] == "blob unknown: blob unknown to registry"
    assert await names(api) == []


async def test_credentials_come_in_the_header(api: Api, registry: FakeRegistry) -> None:
    sample(BASE).put(registry, "a", "1")
    basic = "Basic " + base64.b64encode(b"me:secret").decode()

    def guard(asked: Asked) -> Answer | None:
        if asked.headers.get("authorization") == basic:
            return None
        return Answer(status=401, headers={"WWW-Authenticate": "Basic"})

    registry.rules.append(guard)
    path = f"/images/create?fromImage={registry.host}/a&tag=1"
    assert "no basic auth credentials" in (await api("POST", path)).message
    auth = base64.urlsafe_b64encode(json.dumps({"username": "me", "password": "secret"}).encode()).decode()
    assert (await api("POST", path, headers=[("X-Registry-Auth", auth)])).status == 200
    assert (await api("POST", path, headers=[("X-Registry-Auth", "???")])).status == 400


async def test_a_client_that_goes_away_ends_the_pull(
    api: Api, registry: FakeRegistry, fake: FakePortLayer, service: ImageService
) -> None:
    image = sample(BASE)
    image.put(registry, "a", "1")
    registry.rules.append(
        lambda asked: Answer(body=image.blobs[0], wait=asyncio.Event()) if "/blobs/" in asked.path else None
    )
    registry.rules.append(lambda asked: Answer(body=image.config) if image.id in asked.path else None)
    reader, writer = await api.open("POST", f"/images/create?fromImage={registry.host}/a&tag=1")
    await api.head(reader)
    running = service.puller._transfers._running
    while not running:
        await asyncio.sleep(0)
    task = next(iter(running.values())).task
    writer.close()
    await asyncio.wait([task])
    assert task.cancelled()
    while running:
        await asyncio.sleep(0)
    assert not fake.layers


# ---------------------------------------------------------------------- import and load


async def test_import_with_changes(api: Api, fake: FakePortLayer, events: EventHub) -> None:
    query = "fromSrc=-&repo=me/it&tag=1&message=hello&changes=" + quote('CMD ["x"]') + "&changes=USER%20u"
    reply = await api("POST", f"/images/create?{query}&platform=linux/arm64", raw=gzip.compress(BASE))
    assert reply.status == 200
    (message,) = lines(reply.body)
    shown = (await api("GET", "/images/me/it:1/json")).json
    assert message == {"status": shown["Id"]}
    assert (shown["Config"]["Cmd"], shown["Config"]["User"], shown["Comment"]) == (["x"], "u", "hello")
    assert shown["Architecture"] == "arm64"
    assert [what for what, _, _ in happened(events)] == ["import", "tag"]
    bad = await api("POST", "/images/create?fromSrc=-&changes=RUN%20x", raw=BASE)
    assert (bad.status, bad.message) == (400, "run is not a valid change command")


async def test_load_reports_hostile_input_as_docker_does(api: Api) -> None:
    reply = await api("POST", "/images/load", raw=b"no tar at all")
    assert reply.status == 500
    assert "not a tar" in reply.message


async def test_load_tells_of_it(api: Api, events: EventHub) -> None:
    image = sample(BASE)
    await load(api, (image, ["a:1"]))
    assert happened(events) == [("load", image.id, {"name": image.id})]


# ---------------------------------------------------------------------- list and filters


async def test_the_list_and_its_filters(api: Api, registry: FakeRegistry) -> None:
    old = sample(BASE, created="2020-01-01T00:00:00Z", labels={"age": "old"})
    mid = sample(BASE, TOP, created="2021-01-01T00:00:00Z", labels={"age": "mid", "x": ""})
    new = sample(OTHER, created="2022-01-01T00:00:00Z")
    await load(api, (old, ["old:1", "r.io/old:2"]), (mid, ["mid:1"]), (new, []))
    rows = (await api("GET", "/images/json")).json
    assert [row["Id"] for row in rows] == [new.id, mid.id, old.id]
    assert rows[2]["RepoTags"] == ["old:1", "r.io/old:2"]
    assert [row["SharedSize"] for row in (await api("GET", "/images/json?shared-size=1")).json] == [
        0,
        len(BASE),
        len(BASE),
    ]
    every = ["<none>", "mid:1", "old:1", "r.io/old:2"]
    for query, expected in (
        ("all=1", every),
        (filters(dangling=["true"]), ["<none>"]),
        (filters(dangling=["false"]), every[1:]),
        (filters(label=["age"]), every[1:]),
        (filters(label=["age=mid", "x"]), ["mid:1"]),
        (filters(**{"label!": ["age=mid"]}), ["<none>", "old:1", "r.io/old:2"]),
        (filters(before=["mid:1"]), ["old:1", "r.io/old:2"]),
        (filters(since=["old:1"]), ["<none>", "mid:1"]),
        (filters(since=[old.id[7:19]], before=[new.id]), ["mid:1"]),
        (filters(until=["2020-06-01T00:00:00Z"]), ["old:1", "r.io/old:2"]),
        (filters(reference=["old"]), ["old:1"]),
        (filters(reference=["r.io/*", "mid:1"]), ["mid:1", "r.io/old:2"]),
        (filters(reference=["nothing"]), []),
    ):
        assert await names(api, query) == expected, query


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        (filters(nosuch=["x"]), 400, "invalid filter 'nosuch'"),
        (filters(dangling=["perhaps"]), 400, "invalid filter 'dangling"),
        (filters(before=["nosuch"]), 404, "No such image: nosuch:latest"),
        (filters(until=["yesterday"]), 400, "filter 'until'"),
        (filters(reference=["["]), 400, "syntax error in pattern"),
        ("filters=%7B", 400, "invalid filter"),
        ("filter=x", 400, "filter is not supported any more"),
        ("manifests=1", 501, "manifests"),
    ],
)
async def test_filters_that_cannot_be_honoured_are_refused(
    api: Api, query: str, status: int, words: str
) -> None:
    reply = await api("GET", f"/images/json?{query}")
    assert reply.status == status
    assert words in reply.message


# ---------------------------------------------------------------------- inspect, history, tag


async def test_inspect_and_history_by_every_kind_of_name(api: Api) -> None:
    image = sample(BASE, TOP)
    await load(api, (image, ["r.io:5000/some/name:1"]))
    for name in ("r.io:5000/some/name:1", image.id, image.id[7:19], quote(image.id, safe="")):
        reply = await api("GET", f"/images/{name}/json")
        assert reply.json["Id"] == image.id
        assert reply.json["GraphDriver"]["Data"]["Disk"] == f"/layers/{image.chain[1][7:]}/disk.vmdk"
        rows = (await api("GET", f"/images/{name}/history")).json
        assert [row["CreatedBy"] for row in rows] == ["step 1", "step 0"]
    for what in ("json", "history"):
        reply = await api("GET", f"/images/nosuch/{what}")
        assert (reply.status, reply.message) == (404, "No such image: nosuch:latest")
    wanted = quote(json.dumps({"os": "linux", "architecture": "arm64"}))
    reply = await api("GET", f"/images/{image.id}/json?platform={wanted}")
    assert (reply.status, "linux/arm64" in reply.message) == (404, True)


async def test_tagging(api: Api, events: EventHub) -> None:
    one, two = sample(BASE), sample(TOP)
    await load(api, (one, ["a:1"]), (two, ["b:1"]))
    assert (await api("POST", "/images/a:1/tag?repo=r.io/x&tag=2")).status == 201
    assert (await api("POST", "/images/b:1/tag?repo=a:1")).status == 201
    assert (await api("GET", "/images/a:1/json")).json["Id"] == two.id
    assert (await api("GET", f"/images/{one.id}/json")).json["RepoTags"] == ["r.io/x:2"]
    assert happened(events)[-2:] == [
        ("tag", one.id, {"name": "r.io/x:2"}),
        ("tag", two.id, {"name": "a:1"}),
    ]
    for query, status in (("repo=UP", 400), ("repo=a&tag=b/c", 400), (f"repo=a@sha256:{'0' * 64}", 400)):
        assert (await api("POST", f"/images/b:1/tag?{query}")).status == status
    assert (await api("POST", "/images/nosuch/tag?repo=z")).status == 404


# ---------------------------------------------------------------------- remove and prune


def container(fake: FakePortLayer, image: Sample, *, running: bool) -> None:
    fake.containers["c"] = pb.Container(
        handle=pb.Handle(
            id="c" * 64,
            spec=pb.ContainerSpec(layer=image.chain[-1], metadata=Document(image_id=image.id).encode()),
        ),
        state=pb.ContainerState(status=pb.ContainerState.RUNNING if running else pb.ContainerState.EXITED),
    )


async def test_removing(api: Api, fake: FakePortLayer, events: EventHub) -> None:
    image = sample(BASE)
    await load(api, (image, ["a:1", "b:1"]))
    assert (await api("DELETE", "/images/a:1")).json == [{"Untagged": "a:1"}]
    container(fake, image, running=False)
    reply = await api("DELETE", "/images/b:1")
    assert (reply.status, "must force" in reply.message) == (409, True)
    reply = await api("DELETE", "/images/b:1?force=1&noprune=1")
    assert reply.json == [{"Untagged": "b:1"}, {"Deleted": image.id}]
    assert set(fake.layers) == set(image.chain)
    assert (await api("DELETE", "/images/b:1")).status == 404
    assert [what for what, _, _ in happened(events)][-3:] == ["untag", "untag", "delete"]


async def test_a_running_containers_image_cannot_be_forced(api: Api, fake: FakePortLayer) -> None:
    image = sample(BASE)
    await load(api, (image, ["a:1"]))
    container(fake, image, running=True)
    reply = await api("DELETE", f"/images/{image.id}?force=1")
    assert (reply.status, "cannot be forced" in reply.message) == (409, True)


async def test_a_running_containers_image_loses_its_name_by_force(api: Api, fake: FakePortLayer) -> None:
    image = sample(BASE)
    await load(api, (image, ["a:1"]))
    container(fake, image, running=True)
    reply = await api("DELETE", "/images/a:1")
    assert (reply.status, 'repository reference "a:1" (must force)' in reply.message) == (409, True)
    assert (await api("DELETE", "/images/a:1?force=1")).json == [{"Untagged": "a:1"}]
    assert (await api("GET", f"/images/{image.id}/json")).json["RepoTags"] == []


async def test_layers_of_a_forced_removal_go_with_the_container(
    api: Api, fake: FakePortLayer, service: ImageService, events: EventHub
) -> None:
    image = sample(BASE)
    await load(api, (image, ["a:1"]))
    container(fake, image, running=False)
    await api("DELETE", "/images/a:1?force=1")
    watching = asyncio.create_task(service.open())
    while not events.subscriptions:
        await asyncio.sleep(0)
    fake.containers.clear()
    events.publish("container", "destroy", "c" * 64)
    while fake.layers:
        await asyncio.sleep(0)
    watching.cancel()


async def test_pruning(api: Api, fake: FakePortLayer, events: EventHub) -> None:
    used, dangling, tagged = sample(BASE), sample(TOP), sample(OTHER, labels={"keep": "1"})
    await load(api, (used, []), (dangling, []), (tagged, ["a:1", "b:1"]))
    container(fake, used, running=False)
    reply = await api("POST", "/images/prune")
    assert reply.json == {
        "ImagesDeleted": [{"Deleted": dangling.id}, {"Deleted": dangling.chain[0]}],
        "SpaceReclaimed": len(TOP),
    }
    every = filters(dangling=["false"])
    assert (await api("POST", "/images/prune?" + filters(dangling=["false"], label=["no"]))).json == {
        "ImagesDeleted": None,
        "SpaceReclaimed": 0,
    }
    kept = filters(**{"dangling": ["false"], "label!": ["keep"]})
    assert (await api("POST", f"/images/prune?{kept}")).json["ImagesDeleted"] is None
    reply = await api("POST", f"/images/prune?{every}")
    assert reply.json["ImagesDeleted"] == [
        {"Untagged": "a:1"},
        {"Untagged": "b:1"},
        {"Deleted": tagged.id},
        {"Deleted": tagged.chain[0]},
    ]
    assert [row["Id"] for row in (await api("GET", "/images/json")).json] == [used.id]
    assert happened(events)[-1] == ("prune", "", {"reclaimed": str(len(OTHER))})


# ---------------------------------------------------------------------- registries


async def test_login(api: Api, registry: FakeRegistry) -> None:
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    registry.rules.append(
        lambda asked: (
            None
            if asked.headers.get("authorization") == basic
            else Answer(status=401, headers={"WWW-Authenticate": "Basic"})
        )
    )
    account = {"username": "me", "password": "secret", "serveraddress": registry.host}
    reply = await api("POST", "/auth", account)
    assert (reply.status, reply.json["Status"]) == (200, "Login Succeeded")
    reply = await api("POST", "/auth", account | {"password": "wrong"})
    assert reply.status == 401
    assert reply.message.endswith("unauthorized: incorrect username or password")
    reply = await api("POST", "/auth", account | {"serveraddress": "127.0.0.1:1"})
    assert (reply.status, "connection refused" in reply.message) == (500, True)
    assert (await api("POST", "/auth", ["x"])).status == 400


async def test_a_look_at_a_registry(api: Api, registry: FakeRegistry) -> None:
    image = sample(BASE)
    digest = image.put(registry, "a", "1")
    reply = await api("GET", f"/distribution/{registry.host}/a:1/json")
    assert reply.json == {
        "Descriptor": {"mediaType": image.media_type, "digest": digest, "size": len(image.manifest)},
        "Platforms": [{"architecture": "amd64", "os": "linux"}],
    }
    entry = {"mediaType": image.media_type, "digest": digest, "size": len(image.manifest)}
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry | {"platform": platform}]}
    registry.manifest("a", "multi", index, OCI_INDEX)
    reply = await api("GET", f"/distribution/{registry.host}/a:multi/json")
    assert reply.json["Platforms"] == [{"architecture": "arm64", "os": "linux", "variant": "v8"}]
    registry.rules.append(lambda asked: error(401, "UNAUTHORIZED", "authentication required"))
    assert (await api("GET", f"/distribution/{registry.host}/a:1/json")).status == 401


async def test_search(api: Api, registry: FakeRegistry) -> None:
    found = [
        {"name": "a/one", "description": "first", "star_count": 5, "is_official": True},
        {"name": "a/two", "description": None, "star_count": 1, "is_automated": True},
    ]
    body = json.dumps({"results": found, "num_results": 2}).encode()
    registry.rules.append(lambda asked: Answer(body=body) if asked.path == "/v1/search" else None)
    term = f"term={registry.host}/a"
    reply = await api("GET", f"/images/search?{term}&limit=7")
    assert [item["name"] for item in reply.json] == ["a/one", "a/two"]
    assert reply.json[1] == {
        "name": "a/two", "description": "", "star_count": 1, "is_official": False, "is_automated": True,
    }  # fmt: skip
    assert registry.asked[-1].target == "/v1/search?q=a&n=7"
    for text, names in (('{"stars":["3"]}', ["a/one"]), ('{"is-official":["false"]}', ["a/two"])):
        reply = await api("GET", f"/images/search?{term}&filters={text}")
        assert [item["name"] for item in reply.json] == names
    for query, words in (
        ("", "term must be given"),
        (f"{term}&limit=101", "outside the range of [1, 100]"),
        (f'{term}&filters={{"x":["y"]}}', "invalid filter 'x'"),
        (f'{term}&filters={{"stars":["y"]}}', "invalid filter 'stars=y'"),
    ):
        reply = await api("GET", f"/images/search?{query}")
        assert (reply.status, words in reply.message) == (400, True)
    registry.rules.clear()
    reply = await api("GET", f"/images/search?{term}")
    assert (reply.status, "Unexpected status code 404" in reply.message) == (500, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/images/repo:v1/history?platform=" + quote('{"os":"linux","architecture":"amd64"}'), 200),
        ("GET", "/images/repo:v1/history?platform=" + quote('{"os":"plan9","architecture":"amd64"}'), 404),
        ("GET", "/images/repo:v1/json?manifests=1", 501),
        ("GET", "/images/json?manifests=1", 501),
        ("DELETE", "/images/repo:v1?platforms=" + quote('{"os":"linux","architecture":"amd64"}'), 501),
    ],
)
async def test_one_platform_is_kept(api: Api, method: str, path: str, status: int) -> None:
    await load(api, (sample(BASE), ["repo:v1"]))
    assert (await api(method, path)).status == status


async def test_load_of_one_platform(api: Api) -> None:
    archive = docker_archive((sample(BASE), ["repo:v1"]))
    wanted = quote('{"os":"linux","architecture":"amd64"}')
    reply = await api("POST", f"/images/load?platform={wanted}", raw=archive)
    assert (reply.status, "error" in lines(reply.body)[-1]) == (200, False)


async def test_commit_with_all_that_a_client_may_say(api: Api, fake: FakePortLayer) -> None:
    image = sample(BASE)
    await load(api, (image, ["repo:v1"]))
    container(fake, image, running=True)
    fake.changes["c" * 64] = tar(changed=b"c")
    config = {
        "Hostname": "h",
        "Domainname": "d",
        "User": "u",
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {"80/tcp": {}},
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "Env": ["A=1"],
        "Cmd": ["x"],
        "Healthcheck": {"Test": ["CMD", "y"], "Interval": 10**9, "Timeout": 10**9, "Retries": 2}
        | {"StartPeriod": 10**9, "StartInterval": 10**9},
        "ArgsEscaped": True,
        "Image": "repo:v1",
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Entrypoint": ["e"],
        "NetworkDisabled": True,
        "MacAddress": "02:42:00:00:00:01",
        "OnBuild": ["RUN true"],
        "Labels": {"l": "m"},
        "StopSignal": "TERM",
        "StopTimeout": 3,
        "Shell": ["s"],
    }
    query = "container=c&repo=made&tag=v2&comment=why&author=me&pause=1&changes=" + quote("ENV B=2")
    reply = await api("POST", f"/commit?{query}", config)
    assert reply.status == 201, reply.body
    made = (await api("GET", "/images/made:v2/json")).json
    assert (made["Id"], made["Comment"], made["Author"]) == (reply.json["Id"], "why", "me")
    shown = made["Config"]
    for name in ("User", "Cmd", "Entrypoint", "WorkingDir", "Volumes", "ExposedPorts", "Labels", "Shell"):
        assert shown[name] == config[name]
    assert set(shown["Env"]) >= {"A=1", "B=2"}
    assert (shown["Healthcheck"]["Retries"], shown["StopSignal"]) == (2, "TERM")


async def test_push_and_save(api: Api, registry: FakeRegistry) -> None:
    taking = Taking(registry)
    await load(api, (sample(BASE, TOP), [f"{registry.host}/repo:v1"]))
    auth = base64.urlsafe_b64encode(json.dumps({"username": "u", "password": "p"}).encode()).decode()
    reply = await api(
        "POST", f"/images/{registry.host}/repo/push?tag=v1", headers=[("X-Registry-Auth", auth)]
    )
    assert (reply.status, "aux" in lines(reply.body)[-1], taking.moved > 0) == (200, True, True)
    wanted = quote('{"os":"linux","architecture":"amd64"}')
    for path in (f"/images/{registry.host}/repo:v1/get", f"/images/get?names={registry.host}/repo:v1"):
        reply = await api("GET", path)
        assert (reply.status, len(reply.body) > 1000) == (200, True)
        separator = "&" if "?" in path else "?"
        assert (await api("GET", f"{path}{separator}platform={wanted}")).status in (200, 501)
    assert (await api("POST", f"/images/{registry.host}/repo/push?platform={wanted}")).status in (200, 501)


@pytest.mark.parametrize(
    "name", ["keep-storage", "reserved-space", "max-used-space", "min-free-space", "filters"]
)
async def test_the_build_cache_is_pruned_whole(api: Api, name: str) -> None:
    assert (await api("POST", "/build/prune?all=1")).json["CachesDeleted"] is None
    reply = await api("POST", f"/build/prune?{name}=" + quote('{"until":["1h"]}'))
    assert (reply.status, name in reply.message) == (501, True)
