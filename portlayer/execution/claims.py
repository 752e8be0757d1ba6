"""What a container holds only while it runs: published ports and static addresses.

Docker lets any number of stopped containers want the same port or address; only
the running one has it. So these are claimed at start and given back at exit,
while addresses that we choose ourselves are kept from create to remove. A port
that we chose (``host_port`` 0) is asked for again at the next start.
"""

from __future__ import annotations

from contextlib import ExitStack

from portlayer.errors import PortLayerError
from portlayer.execution.boot import read_only_volumes
from portlayer.execution.container import Container
from portlayer.execution.house import House
from portlayer.portlayer_pb2 import (
    ContainerSpec,
    Endpoint,
    NetworkChange,
    PortBinding,
    Reason,
    Volume,
    VolumeChange,
)

__all__ = [
    "announce_claims",
    "announce_endpoint",
    "claim",
    "has_static_address",
    "release_claims",
    "unassign",
]


def has_static_address(endpoint: Endpoint) -> bool:
    return bool(endpoint.ipv4 or endpoint.ipv6)


def unassign(endpoint: Endpoint) -> Endpoint:
    """The endpoint as the user wanted it."""
    return Endpoint(
        network=endpoint.network,
        ipv4=endpoint.ipv4,
        ipv6=endpoint.ipv6,
        mac=endpoint.mac,
        aliases=endpoint.aliases,
        links=endpoint.links,
        driver_options=endpoint.driver_options,
        gateway_priority=endpoint.gateway_priority,
    )


def claim(house: House, container: Container, undo: ExitStack) -> ContainerSpec:
    """Claim ports and static addresses; the spec with what was assigned.

    Raises:
        PortLayerError: PORT_IN_USE, ADDRESS_IN_USE; ``undo`` gives back what was claimed.
    """
    network = house.rooms.network
    spec = ContainerSpec()
    spec.CopyFrom(container.spec)
    for endpoint in spec.endpoints:
        if has_static_address(endpoint) or not endpoint.endpoint_id:
            undo.callback(network.release, container.id, endpoint.network)
            endpoint.CopyFrom(network.allocate(container.id, spec.name, unassign(endpoint)))
    if spec.ports:
        undo.callback(network.release_ports, container.id)
        ports = _reserve(house, container.id, list(spec.ports))
        del spec.ports[:]
        spec.ports.extend(ports)
    return spec


def _reserve(house: House, container: str, ports: list[PortBinding]) -> list[PortBinding]:
    network = house.rooms.network
    again = [_prefer_last(port) for port in ports]
    if again != [_forget_last(port) for port in ports]:
        try:
            reserved = network.reserve_ports(container, again)
        except PortLayerError as error:
            if error.reason != Reason.PORT_IN_USE:
                raise
        else:
            return [_wanted(port, got) for port, got in zip(ports, reserved, strict=True)]
    reserved = network.reserve_ports(container, [_forget_last(port) for port in ports])
    return [_wanted(port, got) for port, got in zip(ports, reserved, strict=True)]


def _forget_last(port: PortBinding) -> PortBinding:
    plain = PortBinding()
    plain.CopyFrom(port)
    plain.assigned_port = 0
    return plain


def _prefer_last(port: PortBinding) -> PortBinding:
    preferred = _forget_last(port)
    if port.assigned_port and (not port.host_port or port.host_port_end):
        preferred.host_port = port.assigned_port
        preferred.host_port_end = 0
    return preferred


def _wanted(port: PortBinding, reserved: PortBinding) -> PortBinding:
    """What the user wanted, with the port that was assigned."""
    bound = PortBinding()
    bound.CopyFrom(port)
    bound.assigned_port = reserved.assigned_port or reserved.host_port
    return bound


def release_claims(house: House, container: str, spec: ContainerSpec) -> ContainerSpec:
    """Give back ports and static addresses; the spec without the latter.

    ``assigned_port`` stays as a wish for the next start.
    """
    network = house.rooms.network
    network.release_ports(container)
    released = ContainerSpec()
    released.CopyFrom(spec)
    for endpoint in released.endpoints:
        if has_static_address(endpoint) and endpoint.endpoint_id:
            network.release(container, endpoint.network)
            endpoint.CopyFrom(unassign(endpoint))
    return released


def announce_endpoint(
    house: House, container: Container, network: str, kind: NetworkChange.Kind.ValueType
) -> None:
    try:
        what = house.rooms.network.get(network)
    except PortLayerError:
        return  # the network has gone meanwhile; there is nothing to announce
    house.hub.network(NetworkChange(kind=kind, network=what, container=container.id))


def announce_claims(house: House, container: Container, *, started: bool) -> None:
    """Networks (dis)connected and volumes (un)mounted by a start or an exit."""
    connected = NetworkChange.CONNECTED if started else NetworkChange.DISCONNECTED
    for endpoint in container.spec.endpoints:
        announce_endpoint(house, container, endpoint.network, connected)
    mounted = VolumeChange.MOUNTED if started else VolumeChange.UNMOUNTED
    read_only = read_only_volumes(container.spec.mounts)
    for mount in container.spec.mounts:
        house.hub.volume(
            VolumeChange(
                kind=mounted,
                volume=Volume(name=mount.volume),
                container=container.id,
                read_only=read_only[mount.volume],
                destination=mount.destination,
            )
        )
