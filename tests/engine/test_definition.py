"""The engine has what Docker's definition has: every endpoint, every field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from engine.app import build_application
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.index import ContainerIndex
from engine.context import Engine
from engine.events.hub import EventHub
from engine.http import NotFound
from engine.images.service import ImageService
from engine.rpc import PortLayer
from tests.definition.document import definition
from tests.engine.conftest import Api
from vch.config import VchConfig

VERSIONS = [(1, minor) for minor in range(40, 51)]


def absent(schema: Mapping[str, Any], value: Any, place: str = "") -> Iterator[str]:
    """The fields that the definition has and an answer does not."""
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    if isinstance(value, list) and value and "items" in schema:
        for item in value:
            yield from absent(schema["items"], item, place)
    if not isinstance(value, dict):
        return
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        for item in value.values():
            yield from absent(extra, item, f"{place}*.")
    for name, part in schema.get("properties", {}).items():
        if name not in value:
            yield f"{place}{name}"
        else:
            yield from absent(part, value[name], f"{place}{name}.")


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_endpoint_is_there(config: VchConfig, version: tuple[int, int]) -> None:
    port, events = PortLayer(config.paths.portlayer_socket), EventHub()
    images = ImageService(config, port, events)
    router = build_application(
        Engine(
            config=config,
            port=port,
            images=images,
            events=events,
            containers=ContainerIndex(port),
            anonymous=AnonymousVolumes(port),
        )
    ).router
    missing = []
    for method, path in definition(version).operations:
        try:
            router.find(method, path.replace("{", "").replace("}", ""), version)
        except NotFound:
            missing.append(f"{method} {path}")
    await images.close()
    await port.close()
    assert missing == []


RICH = {
    "Cmd": ["sleep"],
    "Healthcheck": {"Test": ["CMD", "true"]},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"a": "b"},
    "Volumes": {"/v": {}},
    "Entrypoint": [],
    "StopSignal": "TERM",
    "StopTimeout": 3,
    "Shell": ["sh"],
    "HostConfig": {
        "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
        "Annotations": {"a": "b"},
        "Init": True,
        "Tmpfs": {"/t": ""},
        "Sysctls": {"net.ipv4.ip_forward": "1"},
        "StorageOpt": {"size": "10G"},
        "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
    },
}

# the end of a field's place: why no answer has it
ABSENT = {
    "ImageManifestDescriptor": "only of a multi-platform image store",
    "Images.Descriptor": "only of a multi-platform image store",
    "Images.Manifests": "only of a multi-platform image store",
    "Config.ArgsEscaped": "Windows",
    "Config.MacAddress": "gone since API 1.44: each endpoint has its own",
    "Config.NetworkDisabled": "omitted unless set",
    "KernelMemoryTCP": "cgroup v2 has no such limit: omitted",
    "HostConfig.Mounts.BindOptions": "omitted unless set",
    "HostConfig.Mounts.Consistency": "omitted unless set",
    "HostConfig.Mounts.ImageOptions": "omitted unless set",
    "HostConfig.Mounts.ReadOnly": "omitted unless set",
    "HostConfig.Mounts.TmpfsOptions": "omitted unless set",
    "HostConfig.Mounts.VolumeOptions": "omitted unless set",
    "cpu_usage.percpu_usage": "cgroup v2 does not count it: omitted",
    "memory_stats.failcnt": "cgroup v2 does not count it: omitted",
    "memory_stats.commitbytes": "Windows",
    "memory_stats.commitpeakbytes": "Windows",
    "memory_stats.privateworkingset": "Windows",
    "networks.*.endpoint_id": "Windows",
    "networks.*.instance_id": "Windows",
    "storage_stats.read_count_normalized": "Windows",
    "storage_stats.read_size_bytes": "Windows",
    "storage_stats.write_count_normalized": "Windows",
    "storage_stats.write_size_bytes": "Windows",
    "Containerd": "there is no containerd",
    "FirewallBackend.Info": "omitted when there is nothing to say",
    "ProductLicense": "omitted when there is none",
    "Runtimes.*.runtimeArgs": "omitted when there are none",
    "Runtimes.*.status": "an OCI runtime's features: there is no OCI runtime on the host",
    "Swarm.Cluster": "no swarm",
    "Swarm.Managers": "no swarm",
    "Swarm.Nodes": "no swarm",
    "ClusterVolume": "no swarm",
    "Peers": "no swarm",
    "Volumes.Status": "only in the answer to the inspection of one volume",
    "UsageData": "only in /system/df",
    "IPAM.Config.AuxiliaryAddresses": "omitted unless set",
    "IPAM.Config.IPRange": "omitted unless set",
}


@pytest.mark.parametrize(
    "path",
    [
        "/containers/json?size=1",
        "/containers/box/json?size=1",
        "/containers/box/top",
        "/containers/box/stats?stream=0",
        "/containers/box/changes",
        "/info",
        "/version",
        "/system/df",
        "/volumes",
        "/volumes/data",
        "/networks",
        "/networks/bridge",
        "/exec/EXEC/json",
    ],
)
async def test_every_field_is_there(api: Api, path: str) -> None:
    await api.run(name="box", **RICH)
    made = await api("POST", "/containers/box/exec", {"Cmd": ["sleep"]})
    path = path.replace("EXEC", made.json["Id"])
    await api("POST", f"/exec/{made.json['Id']}/start", {"Detach": True})
    operation = definition().find("GET", path.partition("?")[0])
    reply = await api("GET", path)
    schema = operation.responses[200]
    missing = set(absent(schema, reply.json))
    assert {
        item for item in missing if not f".{item}".endswith(tuple(f".{known}" for known in ABSENT))
    } == set()
