"""All containers of the VCH and what they hold together: names, volumes, layers, limits.

The truth is the specs; nothing here is stored. Checks and reservations are
plain calls without an ``await`` inside, so two creates cannot both win. A
container that is being created is reserved here before anything of it exists;
it is listed only once it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from portlayer.errors import PortLayerError
from portlayer.execution.boot import read_only_volumes
from portlayer.execution.container import Container
from portlayer.execution.sizing import GuestSize, Sizing
from portlayer.portlayer_pb2 import Reason, VolumeMount
from vch.config import VchConfig

__all__ = ["Registry"]


class Registry:
    def __init__(self, config: VchConfig) -> None:
        self._config = config
        self.sizing = Sizing.of(config)
        self._containers: dict[str, Container] = {}
        self._creating: dict[str, Container] = {}
        self._names: dict[str, str] = {}  # name -> container ID
        self._doomed: set[str] = set()  # volumes whose removal is under way
        self._offline: dict[str, set[str]] = {}  # volume -> containers whose disks are open on the host

    # -- look up
    def get(self, identifier: str) -> Container:
        try:
            return self._containers[identifier]
        except KeyError:
            raise PortLayerError(Reason.NO_SUCH_CONTAINER, f"No such container: {identifier[:64]}") from None

    def find(self, identifier: str) -> Container | None:
        return self._containers.get(identifier)

    def all(self) -> tuple[Container, ...]:
        return tuple(self._containers.values())

    def _everyone(self) -> Iterator[Container]:
        yield from self._containers.values()
        yield from self._creating.values()

    # -- create and remove
    def reserve(self, container: Container) -> None:
        """Claim ID, name and a place under the VCH's limit, or raise and claim nothing."""
        if container.id in self._containers or container.id in self._creating:
            raise PortLayerError(
                Reason.VERSION_CONFLICT, f"container {container.id[:12]} exists already: open its handle"
            )
        limit = self._config.max_containers
        if limit and len(self._containers) + len(self._creating) >= limit:
            raise PortLayerError(
                Reason.LIMIT_EXCEEDED, f"this virtual container host may hold {limit} containers, not more"
            )
        self.claim_name(container.id, container.name)
        self._creating[container.id] = container

    def abandon(self, container: Container) -> None:
        del self._creating[container.id]
        self.release_name(container.id, container.name)

    def publish(self, container: Container) -> None:
        """It is durable now."""
        self._creating.pop(container.id, None)
        self._containers[container.id] = container

    def adopt(self, container: Container) -> None:
        """Found at start-up."""
        self._names.setdefault(container.name, container.id)
        self._containers[container.id] = container

    def forget(self, container: Container) -> None:
        del self._containers[container.id]
        self.release_name(container.id, container.name)

    # -- names
    def claim_name(self, identifier: str, name: str) -> None:
        holder = self._names.get(name)
        if holder is not None and holder != identifier:
            raise PortLayerError(
                Reason.NAME_IN_USE, f'The container name "{name}" is already in use by container "{holder}"'
            )
        self._names[name] = identifier

    def release_name(self, identifier: str, name: str) -> None:
        if self._names.get(name) == identifier:
            del self._names[name]

    # -- what stands on what
    def volume_users(self, volume: str) -> list[str]:
        return [
            container.id
            for container in self._everyone()
            if any(mount.volume == volume for mount in container.spec.mounts)
        ]

    @contextmanager
    def removing_volume(self, volume: str) -> Iterator[None]:
        """Around a volume's removal: nobody uses it, and nobody can begin to.

        Raises:
            PortLayerError: VOLUME_IN_USE
        """
        users = self.volume_users(volume)
        if users:
            raise PortLayerError(Reason.VOLUME_IN_USE, f"volume is in use - [{', '.join(users[:20])}]")
        self._doomed.add(volume)
        try:
            yield
        finally:
            self._doomed.discard(volume)

    def check_volumes_stay(self, container: Container, mounts: Iterable[VolumeMount]) -> None:
        for mount in mounts:
            if mount.volume in self._doomed:
                raise PortLayerError(
                    Reason.NO_SUCH_VOLUME,
                    f"container {container.name}: volume {mount.volume} is being removed",
                )

    def layers_in_use(self) -> set[str]:
        return {container.spec.layer for container in self._everyone() if container.spec.layer}

    def check_volumes_free(self, container: Container, volumes: Mapping[str, bool]) -> None:
        """Raise unless this container's VM may attach its volumes now.

        A writable file system has one kernel at a time: another VM that has
        the volume's disk would destroy it. ``volumes``: those that are disks, and whether
        each is only read.
        """
        for volume, read_only in volumes.items():
            user = self.volume_conflict(container, volume, read_only=read_only)
            if user is not None:
                raise PortLayerError(
                    Reason.VOLUME_IN_USE,
                    f"volume {volume} is in use by container {user}: only containers that all mount "
                    "it read-only can run at the same time, or those of a volume made with --opt Shared=true",
                )

    def volume_conflict(self, container: Container, volume: str, *, read_only: bool) -> str | None:
        """Who has ``volume`` open in a way that excludes ``container``."""
        for other in self._containers.values():
            if other is container:
                continue
            offline = other.id in self._offline.get(volume, ())
            if not (other.live or offline):
                continue
            theirs = read_only_volumes(other.spec.mounts).get(volume)
            if theirs is None:
                continue
            if offline or not (theirs and read_only):
                return other.name
        return None

    def hold_offline(self, container: Container, volume: str) -> None:
        self._offline.setdefault(volume, set()).add(container.id)

    def release_offline(self, container: Container, volume: str) -> None:
        self._offline.get(volume, set()).discard(container.id)

    # -- the VCH's limits
    def check_running_limits(self, container: Container, size: GuestSize) -> None:
        """Raise when starting ``container`` would exceed what the VCH may use at once."""
        others = [other for other in self._containers.values() if other.live and other is not container]
        sizes = [self.sizing.guest_size(other.spec.resources) for other in others]
        memory = sum(entry.memory_mib for entry in sizes) + size.memory_mib
        cpus = sum(entry.vcpus for entry in sizes) + size.vcpus
        if self._config.max_memory_mib and memory > self._config.max_memory_mib:
            raise PortLayerError(
                Reason.LIMIT_EXCEEDED,
                f"container {container.name} needs {size.memory_mib} MiB; running container VMs would have "
                f"{memory} MiB, the limit of this virtual container host is {self._config.max_memory_mib}",
            )
        if self._config.max_cpus and cpus > self._config.max_cpus:
            raise PortLayerError(
                Reason.LIMIT_EXCEEDED,
                f"container {container.name} needs {size.vcpus} CPUs; running container VMs would have "
                f"{cpus}, the limit of this virtual container host is {self._config.max_cpus}",
            )
