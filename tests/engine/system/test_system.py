"""ping, version, info, df."""

from __future__ import annotations

import dataclasses

from engine.system.info import _warnings
from tests.engine.conftest import Api, Images
from tests.engine.fake.state import FakeHost
from vch.config import Registry, Tls, TlsMode, VchConfig


async def test_ping(api: Api) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        reply = await api(method, "/_ping")
        assert (reply.status, reply.body) == (200, body)
        expected = {
            "api-version": "1.50",
            "builder-version": "1",
            "docker-experimental": "true",
            "ostype": "linux",
            "swarm": "inactive",
        }
        assert expected.items() <= reply.headers.items()
    assert (await api("GET", "/v1.30/_ping")).body == b"OK"


async def test_version(api: Api) -> None:
    version = (await api("GET", "/version")).json
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Os"]) == ("1.50", "1.21", "linux")
    assert [part["Name"] for part in version["Components"]] == ["Engine", "portlayer", "qemu"]
    assert version["Components"][2]["Details"]["Accelerator"] == "tcg"


async def test_info_counts(api: Api, host: FakeHost) -> None:
    await api.create()
    paused = await api.run()
    await api("POST", f"/containers/{paused}/pause")
    await api.run()
    info = (await api("GET", "/info")).json
    assert (info["Containers"], info["ContainersRunning"], info["ContainersPaused"]) == (3, 1, 1)
    assert (info["ContainersStopped"], info["Images"]) == (1, 1)
    assert (info["Name"], info["ID"], info["NCPU"]) == ("test", "0" * 32, 2)
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert ["Accelerator", "tcg"] in info["DriverStatus"]


def test_insecure_listeners_shout(config: VchConfig) -> None:
    for tls, words in (
        (Tls(), None),
        (Tls(mode=TlsMode.MUTUAL, port=1), None),
        (Tls(mode=TlsMode.SERVER, port=1), "without client certificates"),
        (Tls(port=1), "without encryption"),
    ):
        warnings = _warnings(dataclasses.replace(config, tls=tls, registry=Registry()))
        assert [words in warning for warning in warnings] == ([True] if words else [])


async def test_df(api: Api, host: FakeHost, images: Images) -> None:
    container = await api.create(HostConfig={"Binds": ["data:/data"]})
    usage = (await api("GET", "/system/df")).json
    assert usage["Images"][0]["Containers"] == 1
    assert (usage["Containers"][0]["Id"], usage["Containers"][0]["SizeRw"]) == (container, 1000)
    assert usage["Volumes"][0]["Name"] == "data"
    assert usage["BuildCache"] == []
    assert set((await api("GET", "/system/df?type=volume")).json) == {"Volumes"}
    assert set((await api("GET", "/v1.41/system/df?type=volume")).json) == {"Volumes", "BuilderSize"}
    reply = await api("GET", "/system/df?type=dust")
    assert (reply.status, reply.message) == (400, "unknown object type: dust")


async def test_unknown_endpoints(api: Api) -> None:
    for method, path in (("GET", "/nothing"), ("PATCH", "/containers/json"), ("POST", "/info")):
        reply = await api(method, path)
        assert (reply.status, reply.message) == (404, "page not found")


async def test_endpoints_that_are_refused_say_so(api: Api) -> None:
    for method, path, status, words in (
        ("POST", "/grpc", 501, "BuildKit"),
        ("POST", "/session", 501, "BuildKit"),
        ("GET", "/swarm", 503, "This node is not a swarm manager."),
        ("POST", "/services/create", 503, "This node is not a swarm manager."),
        ("POST", "/plugins/pull", 501, "plugins"),
    ):
        reply = await api(method, path)
        assert (reply.status, words in reply.message) == (status, True), path
    assert (await api("GET", "/plugins")).json == []
