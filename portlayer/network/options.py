"""Options of a bridge network: every key is honoured or refused by name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.portlayer_pb2 import Reason

__all__ = ["BridgeOptions", "EndpointOptions", "parse_endpoint_options", "parse_options"]

_PREFIX = "com.docker.network."
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_INTERFACE_PREFIX = re.compile(r"[A-Za-z][A-Za-z_-]{0,10}")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True, kw_only=True)
class BridgeOptions:
    name: str = ""  # host interface; "" = derived from the network's ID
    mtu: int = 1500
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""  # published ports without a host IP listen here
    interface_prefix: str = "eth"


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    interface: str = ""  # name inside the container; "" = the network's prefix and a number


def _bad(key: str, value: str, why: str) -> PortLayerError:
    return PortLayerError(Reason.UNSPECIFIED, f"invalid value {value!r} for network option {key}: {why}")


def _bool(key: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise _bad(key, value, "expected true or false")


def _interface(key: str, value: str) -> str:
    if not _INTERFACE.fullmatch(value):
        raise _bad(key, value, "not an interface name (at most 15 letters, digits, '_', '-', '.')")
    return value


def parse_options(options: Mapping[str, str]) -> BridgeOptions:
    """Raises PortLayerError NOT_SUPPORTED that names the option which is not known here."""
    found: dict[str, str | int | bool] = {}
    for key, value in options.items():
        match key.removeprefix(_PREFIX) if key.startswith(_PREFIX) else "":
            case "bridge.name":
                found["name"] = _interface(key, value)
            case "driver.mtu" | "bridge.mtu":
                if not value.isascii() or not value.isdigit() or not 68 <= int(value[:9]) <= 65535:
                    raise _bad(key, value, "expected a number from 68 to 65535")
                found["mtu"] = int(value)
            case "bridge.enable_icc":
                found["icc"] = _bool(key, value)
            case "bridge.enable_ip_masquerade":
                found["masquerade"] = _bool(key, value)
            case "bridge.host_binding_ipv4":
                try:
                    address = ipaddress.IPv4Address(value)
                except ValueError as error:
                    raise _bad(key, value, "expected an IPv4 address") from error
                found["host_binding"] = "" if address.is_unspecified else str(address)
            case "container_iface_prefix":
                if not _INTERFACE_PREFIX.fullmatch(value):
                    raise _bad(key, value, "not the beginning of an interface name")
                found["interface_prefix"] = value
            case "bridge.gateway_mode_ipv4" | "bridge.gateway_mode_ipv6" if value == "nat":
                pass  # what a bridge network does anyway
            case "bridge.default_bridge":
                if _bool(key, value):
                    raise PortLayerError(Reason.NOT_SUPPORTED, f"network option {key} is not supported")
            case _:
                raise PortLayerError(Reason.NOT_SUPPORTED, f"network option {key}={value} is not supported")
    return BridgeOptions(**found)  # type: ignore[arg-type]


def parse_endpoint_options(options: Mapping[str, str]) -> EndpointOptions:
    interface = ""
    for key, value in options.items():
        if key != f"{_PREFIX}endpoint.ifname":
            raise PortLayerError(Reason.NOT_SUPPORTED, f"endpoint option {key}={value} is not supported")
        interface = _interface(key, value)
    return EndpointOptions(interface=interface)
