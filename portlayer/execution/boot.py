"""The boot configuration: everything a guest needs to become its container.

A pure function of the spec, the disks and the interfaces that the network room
gave. The order of ``hosts`` is Docker's: the user's extra hosts, then the
container's own names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portlayer.errors import PortLayerError
from portlayer.hypervisor.base import Disk
from portlayer.portlayer_pb2 import ContainerSpec, Endpoint, Reason, VolumeMount
from tether.tether_pb2 import BootConfig, DiskAddress, HostEntry, Interface, Mount, Resolver

__all__ = [
    "ROOT_DISK",
    "GuestNetwork",
    "boot_config",
    "host_entries",
    "read_only_volumes",
    "shared_mount",
    "volume_disk_id",
]

ROOT_DISK = "root"
_VERSION = 1
_LARGEST = 1 << 20
_HOST_GATEWAY = "host-gateway"


@dataclass(frozen=True, kw_only=True)
class GuestNetwork:
    """What the network room wants the guest to configure."""

    interfaces: Sequence[Interface] = ()
    resolver: Resolver | None = None


def volume_disk_id(volume: str) -> str:
    """The serial number of a volume's disk: at most 20 characters, the same at every start."""
    return f"vol-{hashlib.sha256(volume.encode()).hexdigest()[:16]}"


def read_only_volumes(mounts: Sequence[VolumeMount]) -> dict[str, bool]:
    """Each volume once: whether its disk is attached read-only (every mount of it is)."""
    volumes: dict[str, bool] = {}
    for mount in mounts:
        volumes[mount.volume] = volumes.get(mount.volume, True) and mount.read_only
    return volumes


def boot_config(
    container: str,
    spec: ContainerSpec,
    disks: Sequence[Disk],
    network: GuestNetwork,
    *,
    shared: Sequence[Mount] = (),
    operation: str,
) -> bytes:
    """A serialized ``BootConfig``.

    Raises:
        PortLayerError: it is larger than a guest accepts.
    """
    read_only = {disk.id: disk.read_only for disk in disks}
    config = BootConfig(
        version=_VERSION,
        id=container,
        name=spec.name,
        hostname=spec.hostname,
        domainname=spec.domainname,
        process=spec.process,
        resources=spec.resources,
        root=DiskAddress(serial=ROOT_DISK),
        read_only_root=spec.read_only_root,
        mounts=[*_disk_mounts(spec.mounts, read_only), *shared],
        tmpfs=spec.tmpfs,
        shm_size=spec.shm_size,
        sysctls=spec.sysctls,
        interfaces=network.interfaces,
        resolver=network.resolver or spec.resolver,
        hosts=host_entries(spec),
        masked_paths=spec.masked_paths,
        readonly_paths=spec.readonly_paths,
        engine_sockets=spec.engine_sockets,
        operation=operation,
    )
    if spec.HasField("health"):
        config.health.CopyFrom(spec.health)
    data = config.SerializeToString(deterministic=True)
    if len(data) > _LARGEST:
        raise PortLayerError(
            Reason.LIMIT_EXCEEDED,
            f"the boot configuration has {len(data)} bytes, more than {_LARGEST}: shorten the environment",
        )
    return data


def _disk_mounts(mounts: Sequence[VolumeMount], read_only: Mapping[str, bool]) -> list[Mount]:
    """Of the volumes that are disks; ``shared`` has the others."""
    return [
        Mount(
            disk=DiskAddress(serial=serial),
            destination=mount.destination,
            read_only=mount.read_only,
            # a disk that is attached read-only cannot be filled
            copy_up=not mount.no_copy and not read_only[serial],
            subpath=mount.subpath,
        )
        for mount in mounts
        if (serial := volume_disk_id(mount.volume)) in read_only
    ]


def shared_mount(mount: VolumeMount, tag: str, *, copy_up: bool) -> Mount:
    """Of a volume that is a directory of the host."""
    return Mount(
        share=tag,
        volume=True,
        destination=mount.destination,
        read_only=mount.read_only,
        copy_up=copy_up and not mount.no_copy,
        subpath=mount.subpath,
    )


def host_entries(spec: ContainerSpec) -> list[HostEntry]:
    entries = []
    for entry in spec.extra_hosts:
        address = entry.address
        if address == _HOST_GATEWAY:
            address = _gateway(spec.endpoints)
        entries.append(HostEntry(address=address, names=entry.names))
    names = [spec.hostname] if spec.hostname else []
    if spec.hostname and spec.domainname:
        names.insert(0, f"{spec.hostname}.{spec.domainname}")
    for endpoint in spec.endpoints:
        for assigned in (endpoint.assigned_ipv4, endpoint.assigned_ipv6):
            if assigned and names:
                entries.append(HostEntry(address=assigned.partition("/")[0], names=names))
    return entries


def _gateway(endpoints: Sequence[Endpoint]) -> str:
    for endpoint in endpoints:
        if endpoint.gateway_ipv4:
            return endpoint.gateway_ipv4
    raise PortLayerError(
        Reason.NOT_SUPPORTED, "an extra host says host-gateway, but no network of the container has a gateway"
    )
