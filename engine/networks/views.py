"""Networks as Docker's JSON, and what its filters select. No I/O."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from engine.filters import Filters
from engine.http import BadRequest
from engine.networks.model import NetworkDocument
from engine.timestamps import format_ns, parse_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["as_json", "prunable", "selected"]

_DRIVERS = {"none": "null"}
_IPV4_SHOWN_SINCE = (1, 48)
_TYPES = ("builtin", "custom")


def driver(network: pb.Network) -> str:
    return _DRIVERS.get(network.type, network.type)


def as_json(network: pb.Network, *, version: tuple[int, int], detailed: bool) -> dict[str, Any]:
    """``detailed``: with the connected containers, as inspect shows them."""
    answer: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": format_ns(network.created_at),
        "Scope": "local",
        "Driver": driver(network),
        "EnableIPv4": any(":" not in pool.subnet for pool in network.pools),
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": [_pool(pool) for pool in network.pools]},
        "Internal": network.internal,
        "Attachable": NetworkDocument.decode(network.metadata).attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }
    if version < _IPV4_SHOWN_SINCE:
        del answer["EnableIPv4"]
    if detailed:
        answer["Containers"] = {
            endpoint.container: {
                "Name": endpoint.name,
                "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.ipv4,
                "IPv6Address": endpoint.ipv6,
            }
            for endpoint in network.endpoints
        }
    return answer


def _pool(pool: pb.Pool) -> dict[str, Any]:
    answer: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.ip_range:
        answer["IPRange"] = pool.ip_range
    if pool.gateway:
        answer["Gateway"] = pool.gateway
    if pool.reserved:
        answer["AuxiliaryAddresses"] = dict(pool.reserved)
    return answer


def selected(networks: Iterable[pb.Network], filters: Filters) -> list[pb.Network]:
    """What the filters of `docker network ls` leave."""
    dangling = filters.boolean("dangling")
    types = filters["type"]
    for kind in types:
        if kind not in _TYPES:
            raise BadRequest(f"invalid filter: 'type'='{kind[:100]}'")
    return [
        network
        for network in networks
        if filters.exact("driver", driver(network))
        and filters.fuzzy("id", [network.id])
        and filters.fuzzy("name", [network.name])
        and filters.exact("scope", "local")
        and filters.labels(network.labels)
        and (not types or ("builtin" if network.builtin else "custom") in types)
        and dangling in (None, not network.builtin and not network.endpoints)
    ]


def prunable(networks: Iterable[pb.Network], filters: Filters) -> list[pb.Network]:
    until = filters["until"]
    if len(until) > 1:
        raise BadRequest("more than one until filter specified")
    limit = parse_ns(until[0], time.time_ns(), what="filter 'until'") if until else None
    return [
        network
        for network in networks
        if not network.builtin
        and not network.endpoints
        and (limit is None or network.created_at < limit)
        and filters.labels(network.labels)
        and not filters.excluded_by_labels(network.labels)
    ]
