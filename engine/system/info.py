"""``GET /info``: what this virtual container host is, in the fields clients print."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from typing import Any

from engine import product
from engine.containers import logconfig, status
from engine.context import Engine
from engine.http import Request, Response, Router, json_response
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2
from vch.config import TlsMode, VchConfig

__all__ = ["register"]

INDEX = "https://index.docker.io/v1/"


def register(router: Router, engine: Engine) -> None:
    async def info(request: Request) -> Response:
        found, containers, images = await asyncio.gather(
            engine.port.call(engine.port.system.Info, tether_pb2.Empty(), idempotent=True),
            engine.containers.list(),
            engine.images.list(),
        )
        return json_response(_describe(engine, found, containers, len(images)))

    router.add("GET", "/info", info)


def _describe(
    engine: Engine, found: pb.SystemInfo, containers: list[pb.Container], images: int
) -> dict[str, Any]:
    names = [status.state_name(container.state) for container in containers]
    paused = names.count("paused")
    running = sum(1 for container in containers if status.is_running(container.state)) - paused
    config = engine.config
    return {
        "ID": found.vch_id,
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(containers) - running - paused,
        "Images": images,
        "Driver": "vmdk",
        "DriverStatus": _driver_status(found),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": list(logconfig.DRIVERS),
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "OomKillDisable": False,
        "Debug": False,
        "NFd": -1,
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": "2",
        "NEventsListener": len(engine.events.subscriptions),
        "KernelVersion": found.kernel,
        "OperatingSystem": found.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": found.architecture,
        "IndexServerAddress": INDEX,
        "RegistryConfig": _registries(config),
        "NCPU": config.max_cpus or found.cpus,
        "MemTotal": config.max_memory_mib << 20 or found.memory,
        "GenericResources": None,
        "DockerRootDir": found.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": found.vch,
        "Labels": [],
        "ExperimentalBuild": True,
        "ServerVersion": product.VERSION,
        "Runtimes": {"mooring": {"path": found.hypervisor}},
        "DefaultRuntime": "mooring",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "tether",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": found.version, "Expected": found.version},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=vm"],
        "CDISpecDirs": [],
        "DefaultAddressPools": [{"Base": config.bridge_range, "Size": config.bridge_width}],
        "Warnings": _warnings(config),
    }


def _driver_status(found: pb.SystemInfo) -> list[list[str]]:
    rows = [
        ["Hypervisor", f"{found.hypervisor} {found.hypervisor_version}".strip()],
        ["Accelerator", found.accelerator],
        ["Machine Profile", found.machine_profile],
        ["Default Container VM", f"{found.guest_cpus_default} CPU, {found.guest_memory_default >> 20} MiB"],
        ["Image Store", found.image_store],
        ["Volume Stores", ", ".join(found.volume_stores)],
        ["Storage Total", f"{found.storage_total >> 20} MiB"],
        ["Storage Used", f"{found.storage_used >> 20} MiB"],
    ]
    return rows + [[name, value] for name, value in sorted(found.status.items())]


def _registries(config: VchConfig) -> dict[str, Any]:
    networks, names = ["::1/128", "127.0.0.0/8"], []
    for item in config.registry.insecure:
        try:
            networks.append(str(ipaddress.ip_network(item, strict=False)))
        except ValueError:
            names.append(item)
    mirrors = list(config.registry.mirrors)
    official = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    return {
        "AllowNondistributableArtifactsCIDRs": None,
        "AllowNondistributableArtifactsHostnames": None,
        "InsecureRegistryCIDRs": networks,
        "IndexConfigs": {
            "docker.io": official,
            **{n: {"Name": n, "Mirrors": [], "Secure": False, "Official": False} for n in names},
        },
        "Mirrors": mirrors,
    }


def _warnings(config: VchConfig) -> list[str]:
    tls = config.tls
    if not tls.port or tls.mode is TlsMode.MUTUAL:
        return []
    how = "without encryption" if tls.mode is TlsMode.NONE else "without client certificates"
    return [
        f"[DEPRECATION NOTICE]: API is accessible on tcp://{tls.host}:{tls.port} {how}. "
        "Access to the remote API is equivalent to owning this virtual container host."
    ]
