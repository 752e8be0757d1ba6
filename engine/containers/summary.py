"""One container as ``docker ps`` shows it. No I/O: the networks are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.containers import status
from engine.containers.document import Document
from engine.containers.ports import port_summaries
from engine.containers.translation import shown_command
from portlayer import portlayer_pb2 as pb

__all__ = ["endpoint_settings", "summary"]

SECOND = 1_000_000_000


def summary(
    container: pb.Container,
    document: Document,
    networks: Mapping[str, pb.Network],
    *,
    now_ns: int,
    version: tuple[int, int],
    image: str | None = None,
) -> dict[str, Any]:
    """``image`` replaces the image's name (when the name now means another image)."""
    handle, state = container.handle, container.state
    spec = handle.spec
    endpoints = spec.endpoints
    running = status.is_running(state)
    result: dict[str, Any] = {
        "Id": handle.id,
        "Names": [f"/{spec.name}"],
        "Image": image or document.image or document.image_id,
        "ImageID": document.image_id,
        "Command": shown_command(spec.process.argv),
        "Created": spec.created_at // SECOND,
        "Ports": port_summaries(
            spec.ports, document.exposed, ipv6=any(item.assigned_ipv6 for item in endpoints)
        )
        if running
        else [],
        "Labels": document.labels,
        "State": status.state_name(state),
        "Status": status.status_line(state, now_ns),
        "HostConfig": {"NetworkMode": document.host.get("NetworkMode", "bridge")},
        "NetworkSettings": {
            "Networks": {
                network_name(endpoint, networks): endpoint_settings(
                    endpoint, container=handle.id, name=spec.name, running=running, version=version
                )
                for endpoint in endpoints
            }
        },
        "Mounts": document.mounts,
    }
    if annotations := document.host.get("Annotations"):
        result["HostConfig"]["Annotations"] = annotations
    return result


def network_name(endpoint: pb.Endpoint, networks: Mapping[str, pb.Network]) -> str:
    network = networks.get(endpoint.network)
    return network.name if network is not None else endpoint.network


def endpoint_settings(
    endpoint: pb.Endpoint, *, container: str, name: str, running: bool, version: tuple[int, int]
) -> dict[str, Any]:
    """EndpointSettings: what was wanted and, while the container runs, what it got."""
    ipv4, _, width4 = endpoint.assigned_ipv4.partition("/") if running else ("", "", "")
    ipv6, _, width6 = endpoint.assigned_ipv6.partition("/") if running else ("", "", "")
    wanted = {
        key: value for key, value in (("IPv4Address", endpoint.ipv4), ("IPv6Address", endpoint.ipv6)) if value
    }
    aliases = list(endpoint.aliases)
    result: dict[str, Any] = {
        "IPAMConfig": wanted or None,
        "Links": None,
        "Aliases": [*aliases, container[:12]] if version < (1, 45) else aliases or None,
        "MacAddress": endpoint.assigned_mac if running else "",
        "DriverOpts": dict(endpoint.driver_options) or None,
        "NetworkID": endpoint.network,
        "EndpointID": endpoint.endpoint_id if running else "",
        "Gateway": endpoint.gateway_ipv4 if running else "",
        "IPAddress": ipv4,
        "IPPrefixLen": int(width4 or 0),
        "IPv6Gateway": endpoint.gateway_ipv6 if running else "",
        "GlobalIPv6Address": ipv6,
        "GlobalIPv6PrefixLen": int(width6 or 0),
    }
    if version >= (1, 44):
        result["DNSNames"] = list(dict.fromkeys([name, *aliases, container[:12]]))
    if version >= (1, 48):
        result["GwPriority"] = endpoint.gateway_priority
    return result
