"""What a client may ask of a network, translated for the port layer or refused by name. No I/O."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from engine.containers.config import EndpointSettings
from engine.containers.model import Text, WireModel
from engine.http import BadRequest, Forbidden, NotFound, Unsupported
from portlayer import portlayer_pb2 as pb

__all__ = [
    "PREDEFINED",
    "ConnectRequest",
    "CreateNetwork",
    "DisconnectRequest",
    "NetworkDocument",
    "wanted_network",
]

PREDEFINED = ("bridge", "default", "host", "none")
_DRIVER = "bridge"
_SINGLE = ("host", "null")  # drivers of which there is one network, or none here
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_NAME_LIMIT = 255
_POOLS_LIMIT = 16


class IpamPool(WireModel):
    Subnet: Text = ""
    IPRange: Text = ""
    Gateway: Text = ""
    AuxiliaryAddresses: dict[Text, Text] = Field(default_factory=dict)
    AuxAddress: dict[Text, Text] = Field(default_factory=dict)  # older spelling


class Ipam(WireModel):
    Driver: Text = ""
    Options: dict[Text, Text] = Field(default_factory=dict)
    Pools: list[IpamPool] = Field(default_factory=list, max_length=_POOLS_LIMIT)  # "Config" on the wire

    @model_validator(mode="before")
    @classmethod
    def _config_is_pools(cls, value: Any) -> Any:
        """pydantic keeps the name Config for itself."""
        if not isinstance(value, dict):
            return value
        return {"Pools" if str(key).lower() == "config" else key: item for key, item in value.items()}


class CreateNetwork(WireModel):
    Name: Text = ""
    CheckDuplicate: bool = False  # names are always unique here, as in newer dockerds
    Driver: Text = ""
    Scope: Text = ""
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: dict[Text, Text] | None = None
    IPAM: Ipam | None = None
    Options: dict[Text, Text] = Field(default_factory=dict)
    Labels: dict[Text, Text] = Field(default_factory=dict)


class ConnectRequest(WireModel):
    Container: Text = ""
    EndpointConfig: EndpointSettings = Field(default_factory=EndpointSettings)


class DisconnectRequest(WireModel):
    Container: Text = ""
    Force: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkDocument:
    """What Docker shows of a network and the port layer does not know: kept in its metadata."""

    attachable: bool = False

    def encode(self) -> bytes:
        return json.dumps({"attachable": self.attachable}).encode()

    @classmethod
    def decode(cls, raw: bytes) -> NetworkDocument:
        """An unreadable document is an empty one: the network must stay visible."""
        try:
            value = json.loads(raw or b"{}")
        except ValueError:
            return cls()
        return cls(attachable=isinstance(value, dict) and value.get("attachable") is True)


def wanted_network(body: CreateNetwork) -> pb.Network:
    _check_name(body.Name)
    if body.Driver in _SINGLE:
        raise Forbidden(f'only one instance of "{body.Driver}" network is allowed')
    if body.Driver not in ("", _DRIVER):
        raise NotFound(f'plugin "{body.Driver}" not found')
    if body.Scope not in ("", "local"):
        raise Unsupported(f"networks of scope {body.Scope} are not supported: this is no swarm")
    if body.Ingress:
        raise Unsupported("ingress networks are not supported: this is no swarm")
    if body.ConfigOnly or (body.ConfigFrom or {}).get("Network"):
        raise Unsupported("configuration-only networks (ConfigOnly, ConfigFrom) are not supported")
    if not body.EnableIPv4:
        raise Unsupported("networks without IPv4 (EnableIPv4=false) are not supported")
    return pb.Network(
        name=body.Name,
        type=_DRIVER,
        pools=_pools(body.IPAM or Ipam()),
        internal=body.Internal,
        enable_ipv6=body.EnableIPv6,
        labels=body.Labels,
        options=body.Options,
        # any container may join any network of its own VCH: attachable or not is only shown again
        metadata=NetworkDocument(attachable=body.Attachable).encode(),
    )


def _check_name(name: str) -> None:
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not _NAME.fullmatch(name) or len(name) > _NAME_LIMIT:
        raise BadRequest(
            f"invalid network name {name[:100]!r}: only letters, digits, '_', '.' and '-' are allowed, "
            "and the first must be a letter or digit"
        )


def _pools(ipam: Ipam) -> Sequence[pb.Pool]:
    if ipam.Driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.Driver}" not found')
    if ipam.Options:
        raise Unsupported(f"IPAM option {min(ipam.Options)} is not supported")
    return [_pool(pool) for pool in ipam.Pools if pool != IpamPool()]


def _pool(pool: IpamPool) -> pb.Pool:
    """Checked for form here, so that the errors are Docker's; for sense by the port layer."""
    errors: list[str] = []
    network = _network(pool.Subnet, "subnet", errors) if pool.Subnet else None
    if network is None and not pool.Subnet:
        errors.append(f"invalid subnet {pool.Subnet}: a pool needs a subnet")
    if pool.IPRange:
        inner = _network(pool.IPRange, "ip-range", errors)
        if network and inner and not (inner.version == network.version and network.supernet_of(inner)):  # type: ignore[arg-type]
            errors.append(f"invalid ip-range {pool.IPRange}: it is not inside {pool.Subnet}")
    for what, text in (
        ("gateway", pool.Gateway),
        *(
            ("auxiliary", address)
            for address in (*pool.AuxiliaryAddresses.values(), *pool.AuxAddress.values())
        ),
    ):
        if text:
            _address(text, what, network, errors)
    if errors:
        raise BadRequest("invalid network config:\n" + "\n".join(errors))
    return pb.Pool(
        subnet=pool.Subnet,
        gateway=pool.Gateway,
        ip_range=pool.IPRange,
        reserved={**pool.AuxAddress, **pool.AuxiliaryAddresses},
    )


Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str, what: str, errors: list[str]) -> Net | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        canonical = ipaddress.ip_network(text, strict=False)
    except ValueError:
        errors.append(f"invalid {what} {text[:100]}: invalid CIDR block notation")
    else:
        errors.append(f"invalid {what} {text[:100]}: it should be {canonical}")
    return None


def _address(text: str, what: str, network: Net | None, errors: list[str]) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        errors.append(f"invalid {what} address {text[:100]}: invalid address")
        return
    if network is not None and address not in network:
        errors.append(f"invalid {what} address {text}: parent subnet {network} doesn't contain it")
