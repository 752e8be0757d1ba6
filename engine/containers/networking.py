"""From NetworkMode, EndpointsConfig and Links to endpoints. No I/O: the networks are given."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence

from engine.containers.config import Config, EndpointSettings
from engine.containers.hostconfig import HostConfig
from engine.http import BadRequest, NotFound, Unsupported
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["DEFAULT", "endpoint", "endpoints", "extra_hosts", "find_network", "resolver"]

DEFAULT = "bridge"
HOST_GATEWAY = "host-gateway"
MAX_ENDPOINTS = 16

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")

LinkTarget = Callable[[str], str]  # a container's name or ID -> its ID


def find_network(networks: Sequence[pb.Network], reference: str) -> pb.Network:
    """By ID, name or unique ID prefix; NotFound and ambiguity with Docker's words."""
    for network in networks:
        if network.id == reference:
            return network
    named = [network for network in networks if network.name == reference]
    if len(named) == 1:
        return named[0]
    if named:
        raise BadRequest(f"network {reference} is ambiguous ({len(named)} matches found on name)")
    prefixed = [network for network in networks if reference and network.id.startswith(reference)]
    if len(prefixed) == 1:
        return prefixed[0]
    if prefixed:
        raise BadRequest(
            f"network {reference} is ambiguous ({len(prefixed)} matches found based on ID prefix)"
        )
    raise NotFound(f"network {reference} not found")


def mode_of(host: HostConfig) -> str:
    """The network mode with its default spelled out; modes that share another's network are refused."""
    mode = host.NetworkMode
    if mode == "host":
        raise Unsupported("--network host is not supported: every container is its own virtual machine")
    if mode.startswith("container:"):
        raise Unsupported(f"--network {mode} is not supported: every container is its own virtual machine")
    return DEFAULT if mode in ("", "default") else mode


def endpoints(
    config: Config,
    host: HostConfig,
    wanted: Mapping[str, EndpointSettings | None],
    networks: Sequence[pb.Network],
    link_target: LinkTarget,
) -> list[pb.Endpoint]:
    """The endpoints of a new container; the one of its network mode comes first."""
    mode = mode_of(host)
    settings = {
        DEFAULT if name == "default" else name: value or EndpointSettings() for name, value in wanted.items()
    }
    if mode == "none" or config.NetworkDisabled:
        if set(settings) - {"none"}:
            raise BadRequest(
                "container cannot be connected to multiple networks "
                "with one of the networks in private (none) mode"
            )
        return []
    if "none" in settings:
        raise BadRequest(
            "container cannot be connected to multiple networks "
            "with one of the networks in private (none) mode"
        )
    if len(settings) >= MAX_ENDPOINTS:
        raise BadRequest(f"a container can be connected to at most {MAX_ENDPOINTS} networks")
    result: dict[str, pb.Endpoint] = {}
    for name in [mode, *(name for name in settings if name != mode)]:
        network = _network(networks, name)
        if network.id in result:
            if name not in settings:
                continue
            raise BadRequest(f"network {network.name} is named twice in NetworkingConfig.EndpointsConfig")
        own = _own_settings(settings, name, network)
        if name == mode and config.MacAddress:
            if own.MacAddress and _mac(own.MacAddress) != _mac(config.MacAddress):
                raise BadRequest(
                    "the container-wide MAC address must match the endpoint-specific MAC address "
                    "for the main network, or be left empty"
                )
            own = own.model_copy(update={"MacAddress": config.MacAddress})
        if name == mode and host.Links:
            own = own.model_copy(update={"Links": [*own.Links, *host.Links]})
        result[network.id] = endpoint(own, network, link_target)
    return list(result.values())


def _own_settings(
    settings: Mapping[str, EndpointSettings], name: str, network: pb.Network
) -> EndpointSettings:
    """A client may say the mode by name and the endpoint by ID, or the other way round."""
    for key in (name, network.name, network.id):
        if key in settings:
            return settings[key]
    return EndpointSettings()


def _network(networks: Sequence[pb.Network], name: str) -> pb.Network:
    try:
        return find_network(networks, name)
    except NotFound as error:  # a 404 from create means "no such image" to clients: they would pull
        raise BadRequest(error.message) from error


def endpoint(settings: EndpointSettings, network: pb.Network, link_target: LinkTarget) -> pb.Endpoint:
    """One endpoint, checked against its network (``docker network connect`` uses it too)."""
    ipam = settings.IPAMConfig
    if ipam and ipam.LinkLocalIPs:
        raise Unsupported("--link-local-ip is not supported (EndpointSettings.IPAMConfig.LinkLocalIPs)")
    ipv4 = _address(ipam.IPv4Address if ipam else "", 4, network)
    ipv6 = _address(ipam.IPv6Address if ipam else "", 6, network)
    if network.builtin and (ipv4 or ipv6):
        raise BadRequest("user specified IP address is supported on user defined networks only")
    if network.builtin and settings.Aliases:
        raise BadRequest("network-scoped alias is supported only for containers in user defined networks")
    if not -(1 << 31) <= settings.GwPriority < 1 << 31:
        raise BadRequest(f"invalid gateway priority {settings.GwPriority}")
    return pb.Endpoint(
        network=network.id,
        ipv4=ipv4,
        ipv6=ipv6,
        mac=_mac(settings.MacAddress),
        aliases=settings.Aliases,
        links=[_link(text, link_target) for text in settings.Links],
        driver_options=settings.DriverOpts,
        gateway_priority=settings.GwPriority,
    )


def _address(text: str, family: int, network: pb.Network) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != family or "%" in text:
        raise BadRequest(f"invalid endpoint settings:\ninvalid IPv{family} address: {text}")
    subnets = [ipaddress.ip_network(pool.subnet, strict=False) for pool in network.pools if pool.subnet]
    if not any(address in subnet for subnet in subnets):
        raise BadRequest(f"invalid endpoint settings:\nno configured subnet contains IP address {text}")
    return str(address)


def _mac(text: str) -> str:
    if not text:
        return ""
    if not _MAC.fullmatch(text):
        raise BadRequest(f"invalid MAC address {text}")
    return text.lower().replace("-", ":")


def link_name(text: str) -> str:
    """The container that a link names."""
    return text.partition(":")[0].lstrip("/")


def _link(text: str, link_target: LinkTarget) -> str:
    """ "container", "container:alias", and the spelling "/container:/us/alias" that inspect shows."""
    name = link_name(text)
    alias = text.partition(":")[2].rpartition("/")[2] or name
    if not name or ":" in alias:
        raise BadRequest(f"bad format for links: {text}")
    return f"{link_target(name)}:{alias}"


def resolver(host: HostConfig) -> tether_pb2.Resolver:
    for server in host.Dns:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise BadRequest(f"bad nameserver address {server}") from None
    for text in [*host.DnsSearch, *host.DnsOptions]:
        if not text or any(character.isspace() for character in text):
            raise BadRequest(f"{text!r} is not a valid domain or resolver option")
    return tether_pb2.Resolver(servers=host.Dns, search=host.DnsSearch, options=host.DnsOptions)


def extra_hosts(host: HostConfig, networks: Sequence[pb.Network], first: str) -> list[tether_pb2.HostEntry]:
    """``--add-host``. ``host-gateway`` is the gateway of the container's first network."""
    result: list[tether_pb2.HostEntry] = []
    for text in host.ExtraHosts:
        name, separator, address = text.partition("=" if "=" in text.partition(":")[0] else ":")
        if not separator or not name or any(character.isspace() for character in text):
            raise BadRequest(f'bad format for add-host: "{text}"')
        for one in address.split(","):
            result.append(tether_pb2.HostEntry(address=_host_address(one, networks, first), names=[name]))
    return result


def _host_address(text: str, networks: Sequence[pb.Network], first: str) -> str:
    if text == HOST_GATEWAY:
        for network in networks:
            if network.id == first:
                for pool in network.pools:
                    if pool.gateway and ":" not in pool.gateway:
                        return pool.gateway.partition("/")[0]
        raise BadRequest("unable to derive the IP value for host-gateway")
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise BadRequest(f'invalid IP address in add-host: "{text}"') from None
