"""Options that no other test asks the API for: honoured in what reaches the port layer, or refused by name."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from engine.build.options import BUILDKIT
from engine.containers.hostconfig import REFUSED
from tests.definition.document import Operation, definition
from tests.engine.conftest import Api
from tests.engine.fake.state import FakeHost

DEVICE = [{"Path": "/dev/sda", "Rate": 1}]
ASKED: dict[str, Any] = {
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 10}],
    "BlkioDeviceReadBps": DEVICE,
    "BlkioDeviceWriteBps": DEVICE,
    "BlkioDeviceReadIOps": DEVICE,
    "BlkioDeviceWriteIOps": DEVICE,
    "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}],
    "DeviceCgroupRules": ["c 1:3 rwm"],
    "DeviceRequests": [
        {"Driver": "nvidia", "Count": 1, "DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {"a": "b"}}
    ],
    "CgroupnsMode": "host",
    "IpcMode": "host",
    "PidMode": "host",
    "UTSMode": "host",
    "UsernsMode": "keep-id",
    "Runtime": "runc",
    "Isolation": "hyperv",
    "VolumeDriver": "nfs",
}
UPDATABLE_NEVER = {
    "VolumeDriver",
    "Runtime",
    "Isolation",
    "IpcMode",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "Cgroup",
}


def asked(name: str) -> Any:
    return ASKED.get(name, "x" if name in ("CgroupParent", "Cgroup", "CpusetMems") else 7)


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_what_a_container_vm_cannot_do_is_refused_by_name(api: Api, name: str) -> None:
    reply = await api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {name: asked(name)}})
    assert reply.status == 501
    assert f"(HostConfig.{name})" in reply.message


BIND = {
    "Propagation": "rslave",
    "NonRecursive": True,
    "CreateMountpoint": True,
    "ReadOnlyNonRecursive": True,
    "ReadOnlyForceRecursive": True,
}
NEVER_UPDATED = {"Init": True, "OomKillDisable": True, "Ulimits": [{"Name": "core", "Soft": 1, "Hard": 2}]}


@pytest.mark.parametrize("name", sorted(NEVER_UPDATED))
async def test_an_update_refuses_what_only_a_new_container_can_have(api: Api, name: str) -> None:
    await api.run(name="box")
    reply = await api("POST", "/containers/box/update", {name: NEVER_UPDATED[name]})
    assert (reply.status, name in reply.message) == (501, True)
    assert (
        await api("POST", "/containers/box/update", {name: None, "PidsLimit": 7, "CpusetCpus": "0"})
    ).status == 200


@pytest.mark.parametrize("name", sorted(set(REFUSED) - UPDATABLE_NEVER - {"CgroupnsMode"}))
async def test_an_update_refuses_what_create_refuses(api: Api, name: str) -> None:
    await api.run(name="box")
    reply = await api("POST", "/containers/box/update", {name: asked(name)})
    assert reply.status == 501
    assert name in reply.message


async def test_mount_options(api: Api, host: FakeHost) -> None:
    volume = {
        "NoCopy": True,
        "Labels": {"a": "b"},
        "DriverConfig": {"Name": "local", "Options": {"Capacity": "1G"}},
        "Subpath": "below",
    }
    tmpfs = {"SizeBytes": 4096, "Mode": 0o700, "Options": [["noexec"]]}
    mounts = [
        {
            "Type": "volume",
            "Source": "data",
            "Target": "/d",
            "Consistency": "default",
            "VolumeOptions": volume,
        },
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": tmpfs, "ReadOnly": True},
    ]
    container = await api.run(name="box", HostConfig={"Mounts": mounts, "VolumeDriver": "local"})
    spec = host.machines[container].handle.spec
    assert (spec.mounts[0].no_copy, spec.mounts[0].subpath) == (True, "below")
    assert host.volumes["data"].labels == {"a": "b"}
    assert host.volumes["data"].options == {"Capacity": "1G"}
    assert {"size=4096", "mode=700", "noexec", "ro"} <= set(spec.tmpfs[0].options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"BindOptions": {"Propagation": "rslave"}}, "BindOptions must not be specified"),
        ({"ImageOptions": {"Subpath": "x"}}, "ImageOptions must not be specified"),
    ],
)
async def test_options_of_another_type_of_mount(api: Api, options: dict[str, Any], text: str) -> None:
    mount = {"Type": "volume", "Source": "data", "Target": "/d", **options}
    reply = await api("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    assert (reply.status, text in reply.message) == (400, True)


async def test_configuration(api: Api, host: FakeHost) -> None:
    health = {
        "Test": ["CMD", "true"],
        "Timeout": 10**9,
        "Retries": 2,
        "StartPeriod": 10**9,
        "StartInterval": 10**9,
    }
    container = await api.run(
        name="box",
        Healthcheck=health,
        MacAddress="02:42:00:00:00:07",
        HostConfig={
            "CpusetCpus": "0",
            "DnsOptions": ["ndots:3"],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "UsernsMode": "host",
            "Runtime": "mooring",
            "Isolation": "default",
            "MaskedPaths": ["/proc/kcore"],
            "ReadonlyPaths": ["/proc/sys"],
            "ContainerIDFile": "/tmp/id",
        },
    )
    spec = host.machines[container].handle.spec
    assert (
        spec.health.timeout,
        spec.health.retries,
        spec.health.start_period,
        spec.health.start_interval,
    ) == (
        10**9,
        2,
        10**9,
        10**9,
    )
    assert spec.endpoints[0].mac == "02:42:00:00:00:07"
    assert spec.resources.cpuset_cpus == "0"
    assert list(spec.resolver.options) == ["ndots:3"]
    assert (list(spec.masked_paths), list(spec.readonly_paths)) == (["/proc/kcore"], ["/proc/sys"])
    shown = (await api("GET", "/containers/box/json")).json["HostConfig"]
    assert (shown["ContainerIDFile"], shown["IpcMode"], shown["CgroupnsMode"], shown["UsernsMode"]) == (
        "/tmp/id",
        "private",
        "private",
        "host",
    )


async def test_connecting_with_an_ipv6_address(api: Api, host: FakeHost) -> None:
    made = await api(
        "POST", "/networks/create", {"Name": "six", "IPAM": {"Config": [{"Subnet": "fd01::/64"}]}}
    )
    container = await api.create(name="box")
    body = {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv6Address": "fd01::9"}}}
    assert (made.status, (await api("POST", "/networks/six/connect", body)).status) == (201, 200)
    assert host.machines[container].handle.spec.endpoints[1].ipv6 == "fd01::9"


async def test_endpoint_settings(api: Api, host: FakeHost) -> None:
    pools = [{"Subnet": "172.30.7.0/24"}, {"Subnet": "fd00::/64"}]
    await api("POST", "/networks/create", {"Name": "six", "EnableIPv6": True, "IPAM": {"Config": pools}})
    settings = {
        "IPAMConfig": {"IPv4Address": "172.30.7.9", "IPv6Address": "fd00::9"},
        "DriverOpts": {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"},
    }
    reply = await api(
        "POST",
        "/containers/create?name=box",
        {
            "Image": "busybox",
            "HostConfig": {"NetworkMode": "six"},
            "NetworkingConfig": {"EndpointsConfig": {"six": settings}},
        },
    )
    assert reply.status == 201
    endpoint = host.machines[reply.json["Id"]].handle.spec.endpoints[0]
    assert (endpoint.ipv4, endpoint.ipv6) == ("172.30.7.9", "fd00::9")
    assert dict(endpoint.driver_options) == settings["DriverOpts"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/containers/create", {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}}}}),
        ("/networks/bridge/connect", {"Container": "box", "EndpointConfig": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}}),
        ("/containers/create", {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/s", "Target": "/t", "BindOptions": BIND}]}}),
        ("/containers/create", {"HostConfig": {"Mounts": [{"Type": "image", "Target": "/t", "ImageOptions": {"Subpath": "x"}}]}}),
        ("/networks/create", {"Name": "n", "Scope": "swarm"}),
        ("/networks/create", {"Name": "n", "Ingress": True}),
        ("/networks/create", {"Name": "n", "ConfigFrom": {"Network": "other"}}),
        ("/networks/create", {"Name": "n", "EnableIPv4": False}),
        ("/networks/create", {"Name": "n", "IPAM": {"Options": {"a": "b"}}}),
        (
            "/volumes/create",
            {
                "Name": "vv",
                "ClusterVolumeSpec": {
                    "Group": "g",
                    "AccessMode": {
                        "Scope": "multi",
                        "Sharing": "all",
                        "MountVolume": {"a": 1},
                        "Secrets": [{"Key": "k", "Secret": "s"}],
                        "AccessibilityRequirements": {"Requisite": [{"a": "b"}], "Preferred": [{"a": "b"}]},
                        "CapacityRange": {"RequiredBytes": 1, "LimitBytes": 2},
                        "Availability": "pause",
                    },
                },
            },
        ),
    ],
)  # fmt: skip
async def test_what_is_refused_by_name(api: Api, path: str, body: dict[str, Any]) -> None:
    await api.run(name="box")
    reply = await api("POST", path, {"Image": "busybox", **body} if path == "/containers/create" else body)
    assert reply.status == 501


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/box/logs?stdout=1&until=1h"),
        ("GET", "/containers/box/stats?stream=1"),
        ("POST", "/containers/box/restart?signal=KILL&t=1"),
        ("GET", "/networks/bridge?scope=local&verbose=1"),
        ("DELETE", "/containers/box?force=1&link=0"),
    ],
)
async def test_queries(api: Api, method: str, path: str) -> None:
    await api.run(name="box")
    reader, _ = await api.open(method, path)
    status, _ = await api.head(reader)
    assert status < 300


async def test_execs_have_their_own_keys_and_size(api: Api) -> None:
    await api.run(name="box")
    body = {"Cmd": ["sleep"], "Tty": True, "DetachKeys": "ctrl-a", "ConsoleSize": [10, 20]}
    made = await api("POST", "/containers/box/exec", body)
    assert made.status == 201
    start = await api(
        "POST", f"/exec/{made.json['Id']}/start", {"Detach": True, "Tty": True, "ConsoleSize": [5, 6]}
    )
    assert start.status == 200


ELSEWHERE = ("/nodes", "/services", "/tasks", "/secrets", "/configs", "/swarm")

SWARM = [operation for operation in definition().operations.values() if operation.path.startswith(ELSEWHERE)]


@pytest.mark.parametrize("operation", SWARM, ids=lambda operation: operation.name)
async def test_swarm_answers_as_a_daemon_outside_of_one(api: Api, operation: Operation) -> None:
    reply = await api(operation.method, operation.path.replace("{id}", "x"), {} if operation.body else None)
    if operation.path in ("/swarm/init", "/swarm/join"):
        assert (reply.status, "swarm mode is not supported" in reply.message) == (501, True)
    else:
        assert (reply.status, reply.message.startswith("This node is not ")) == (503, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("DELETE", "/plugins/x", 404, 'plugin "x" not found'),
        ("GET", "/plugins/x/json", 404, 'plugin "x" not found'),
        ("POST", "/plugins/a/b/enable", 404, 'plugin "a/b" not found'),
        ("POST", "/plugins/x/disable", 404, 'plugin "x" not found'),
        ("POST", "/plugins/x/upgrade", 404, 'plugin "x" not found'),
        ("POST", "/plugins/x/push", 404, 'plugin "x" not found'),
        ("POST", "/plugins/x/set", 404, 'plugin "x" not found'),
        ("POST", "/plugins/create?name=x", 501, "plugins are not supported"),
        ("POST", "/plugins/pull?remote=x", 501, "plugins are not supported"),
        ("GET", "/plugins/privileges?remote=x", 501, "plugins are not supported"),
        (
            "DELETE",
            "/containers/box?link=1",
            501,
            "removing a link is not supported: links end with their container",
        ),
        ("POST", "/session", 501, BUILDKIT),
        ("PUT", "/volumes/x", 501, "cluster volumes are not supported: this is no swarm"),
    ],
)
async def test_what_is_not_here(api: Api, method: str, path: str, status: int, text: str) -> None:
    reply = await api(method, path)
    assert (reply.status, reply.message) == (status, text)


async def test_a_stream_of_statistics_is_not_one_shot(api: Api) -> None:
    await api.run(name="box")
    reply = await api("GET", "/containers/box/stats?one-shot=1")
    assert (reply.status, reply.message) == (400, "cannot have stream=true and one-shot=true")


async def test_there_are_no_plugins(api: Api) -> None:
    assert (await api("GET", '/plugins?filters={"enabled":["true"]}')).json == []
    assert (await api("GET", '/plugins?filters={"colour":["red"]}')).status == 400


async def test_files_keep_their_owners_on_demand(api: Api, host: FakeHost) -> None:
    await api.run(name="box")
    with io.BytesIO() as buffer:
        tarfile.open(fileobj=buffer, mode="w").close()
        reply = await api(
            "PUT",
            "/containers/box/archive?path=/srv&copyUIDGID=1&noOverwriteDirNonDir=1",
            raw=buffer.getvalue(),
        )
    assert reply.status == 200


async def test_limits_in_numbers(api: Api, host: FakeHost) -> None:
    limits = {"BlkioWeight": 300, "CpuPeriod": 50_000, "CpuQuota": 20_000, "MemoryReservation": 64 << 20}
    memory = {"Memory": 128 << 20, "MemorySwap": 256 << 20}
    more = {"OomKillDisable": True, "ConsoleSize": [10, 20], "Privileged": True, "PublishAllPorts": True}
    container = await api.run(name="box", NetworkDisabled=True, HostConfig={**limits, **memory, **more})
    spec = host.machines[container].handle.spec
    got = spec.resources
    assert (got.blkio_weight, got.cpu_period, got.cpu_quota) == (300, 50_000, 20_000)
    assert (got.memory, got.memory_swap, got.memory_reservation) == (128 << 20, 256 << 20, 64 << 20)
    assert (got.oom_kill_disable, spec.process.privileged, len(spec.endpoints)) == (True, True, 0)
    changed = {"BlkioWeight": 400, "CpuPeriod": 60_000, "CpuQuota": 30_000, "MemoryReservation": 32 << 20}
    assert (await api("POST", "/containers/box/update", changed)).status == 200
    got = host.machines[container].handle.spec.resources
    assert (got.blkio_weight, got.cpu_period, got.cpu_quota) == (400, 60_000, 30_000)
    assert got.memory_reservation == 32 << 20


async def test_updates_of_policy_and_processors(api: Api, host: FakeHost) -> None:
    container = await api.run(name="box")
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    reply = await api("POST", "/containers/box/update", {"NanoCpus": 500_000_000, "RestartPolicy": policy})
    assert reply.status == 200
    spec = host.machines[container].handle.spec
    assert (spec.resources.nano_cpus, spec.restart.maximum_retries) == (500_000_000, 3)
