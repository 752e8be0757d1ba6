"""``GET /containers/{name}/json``: docker inspect."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from engine.containers import status
from engine.containers.document import Document
from engine.containers.listing import add_sizes, networks_by_id
from engine.containers.ports import port_map
from engine.containers.resources import overlay
from engine.containers.summary import endpoint_settings, network_name
from engine.containers.translation import DEFAULT_SHM, MASKED_PATHS, READONLY_PATHS
from engine.context import Engine
from engine.http import Request, Response, Router, json_response
from engine.rpc import PortLayerError
from engine.timestamps import format_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["register"]

STORAGE_DRIVER = "vmdk"
EXECS_SECONDS = 2.0

logger = logging.getLogger(__name__)

_NULL_WHEN_EMPTY = (
    "Binds",
    "CapAdd",
    "CapDrop",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "ExtraHosts",
    "GroupAdd",
    "SecurityOpt",
    "Ulimits",
    "VolumesFrom",
)


def register(router: Router, engine: Engine) -> None:
    async def inspect(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        networks = await networks_by_id(engine)
        execs: list[str] = []
        if status.state_name(container.state) == "running":
            execs = await _exec_ids(engine, container.handle.id)
        links = [
            await _shown_link(engine, container.handle.spec.name, link)
            for endpoint in container.handle.spec.endpoints
            for link in endpoint.links
        ]
        document = engine.containers.document(container.handle)
        result = describe(container, document, networks, execs=execs, links=links, version=request.version)
        if request.query.flag("size"):
            await add_sizes(engine, [result])
        return json_response(result)

    router.add("GET", "/containers/{name}/json", inspect)


async def _exec_ids(engine: Engine, container: str) -> list[str]:
    try:
        reply = await engine.port.call(
            engine.port.interaction.Execs, pb.ContainerRef(id=container), timeout=EXECS_SECONDS
        )
    except PortLayerError as error:  # a guest that ended or hangs must not make inspect fail
        logger.info("no list of execs of container %s: %s", container[:12], error)
        return []
    return [state.exec_id for state in reply.execs if state.running]


async def _shown_link(engine: Engine, name: str, link: str) -> str:
    target, _, alias = link.partition(":")
    return f"/{await engine.containers.name_of(target)}:/{name}/{alias}"


def describe(
    container: pb.Container,
    document: Document,
    networks: Mapping[str, pb.Network],
    *,
    execs: Sequence[str],
    links: Sequence[str],
    version: tuple[int, int],
) -> dict[str, Any]:
    handle, state = container.handle, container.state
    spec = handle.spec
    argv = list(spec.process.argv)
    result: dict[str, Any] = {
        "Id": handle.id,
        "Created": format_ns(spec.created_at),
        "Path": argv[0] if argv else "",
        "Args": argv[1:],
        "State": _state(container),
        "Image": document.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": container.log_path,
        "Name": f"/{spec.name}",
        "RestartCount": state.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": document.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(execs) or None,
        "HostConfig": _host_config(spec, document, links),
        "GraphDriver": {
            "Name": STORAGE_DRIVER,
            "Data": {"Disk": container.disk_path, "Layer": spec.layer},
        },
        "Mounts": document.mounts,
        "Config": _config(spec, document, version),
        "NetworkSettings": _network_settings(container, document, networks, version),
    }
    return result


def _state(container: pb.Container) -> dict[str, Any]:
    state = container.state
    name = status.state_name(state)
    result: dict[str, Any] = {
        "Status": name,
        "Running": status.is_running(state),
        "Paused": name == "paused",
        "Restarting": name == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": name == "dead",
        "Pid": state.pid if status.is_running(state) else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": format_ns(state.started_at),
        "FinishedAt": format_ns(state.finished_at),
    }
    if container.handle.spec.HasField("health"):
        result["Health"] = {
            "Status": status.health_name(state),
            "FailingStreak": state.failing_streak,
            "Log": [
                {
                    "Start": format_ns(probe.started_at),
                    "End": format_ns(probe.finished_at),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                }
                for probe in state.probes
            ],
        }
    return result


def _config(spec: pb.ContainerSpec, document: Document, version: tuple[int, int]) -> dict[str, Any]:
    config = document.full_config()
    result = config.shown()
    result["Hostname"] = spec.hostname
    result["Image"] = document.image
    result["ExposedPorts"] = {key: {} for key in config.ExposedPorts}
    result["Volumes"] = {key: {} for key in config.Volumes} or None
    for name in ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell", "ArgsEscaped"):
        if not result[name]:
            del result[name]
    if not config.NetworkDisabled:
        del result["NetworkDisabled"]
    if version >= (1, 44):
        del result["MacAddress"]
    return result


def _host_config(spec: pb.ContainerSpec, document: Document, links: Sequence[str]) -> dict[str, Any]:
    host = overlay(document.full_host(), spec)
    host.IpcMode = host.IpcMode or "private"
    host.CgroupnsMode = host.CgroupnsMode or "private"
    host.NetworkMode = host.NetworkMode or "bridge"
    host.ShmSize = host.ShmSize or DEFAULT_SHM
    host.Runtime = host.Runtime or "mooring"
    host.ConsoleSize = host.ConsoleSize or [0, 0]
    if not host.Privileged:
        host.MaskedPaths = list(MASKED_PATHS) if host.MaskedPaths is None else host.MaskedPaths
        host.ReadonlyPaths = list(READONLY_PATHS) if host.ReadonlyPaths is None else host.ReadonlyPaths
    result = host.shown()
    result["Links"] = list(links) or None
    result["Mounts"] = [mount.kept() for mount in host.Mounts]
    for name in ("Init", "Mounts", "Sysctls", "Tmpfs", "StorageOpt", "Annotations"):
        if not result[name]:
            del result[name]
    for name in ("KernelMemory", "KernelMemoryTCP"):
        del result[name]
    for name in _NULL_WHEN_EMPTY:
        result[name] = result[name] or None
    return result


def _network_settings(
    container: pb.Container, document: Document, networks: Mapping[str, pb.Network], version: tuple[int, int]
) -> dict[str, Any]:
    handle = container.handle
    spec = handle.spec
    running = status.is_running(container.state)
    shown = {
        network_name(endpoint, networks): endpoint_settings(
            endpoint, container=handle.id, name=spec.name, running=running, version=version
        )
        for endpoint in spec.endpoints
    }
    if not shown:
        none = next((network for network in networks.values() if network.name == "none"), None)
        shown = {
            "none": endpoint_settings(
                pb.Endpoint(network=none.id if none else ""),
                container=handle.id,
                name=spec.name,
                running=running,
                version=version,
            )
        }
    bridge = shown.get("bridge", {})
    ipv6 = any(endpoint.assigned_ipv6 for endpoint in spec.endpoints)
    return {
        "Bridge": "",
        "SandboxID": handle.id if running else "",
        "SandboxKey": "",
        "Ports": port_map(spec.ports, document.exposed, ipv6=ipv6) if running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": bridge.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": bridge.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": bridge.get("IPv6Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": shown,
    }
