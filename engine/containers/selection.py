"""The filters of ``docker ps`` and ``docker container prune``, applied to one container. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from engine.containers import status
from engine.containers.document import Document
from engine.containers.ports import PROTOCOLS, Port, parse_exposed, parse_port_range
from engine.filters import Filters
from engine.http import BadRequest
from portlayer import portlayer_pb2 as pb

__all__ = ["ALLOWED", "Selection"]

ALLOWED = frozenset(
    (
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "isolation",
        "is-task",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    )
)
_STATES = ("created", "dead", "exited", "paused", "removing", "restarting", "running")
_HEALTH = ("healthy", "none", "starting", "unhealthy")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which containers are wanted. Made once per request, asked per container."""

    filters: Filters
    all: bool = False
    images: Collection[str] | None = None  # IDs for `ancestor`; None = not filtered
    before: int = 0  # creation times of the containers named by `before` and `since`; 0 = not filtered
    since: int = 0
    exit_codes: Collection[int] = ()
    published: Collection[Port] = ()
    exposed: Collection[Port] = ()
    networks: Mapping[str, pb.Network] = field(default_factory=dict)

    @classmethod
    def check(cls, filters: Filters) -> None:
        """Refuse impossible values with Docker's words, before anything is listed."""
        for value in filters["status"]:
            if value not in _STATES:
                raise BadRequest(
                    f"invalid filter 'status={value}': invalid value for state ({value}): "
                    f"must be one of {', '.join(_STATES)}"
                )
        for value in filters["health"]:
            if value not in _HEALTH:
                raise BadRequest(
                    f"invalid filter 'health={value}': invalid value for health ({value}): "
                    f"must be one of {', '.join(_HEALTH)}"
                )
        filters.boolean("is-task")

    @staticmethod
    def numbers(filters: Filters) -> list[int]:
        result: list[int] = []
        for value in filters["exited"]:
            try:
                result.append(int(value))
            except ValueError:
                raise BadRequest(f"invalid filter 'exited={value}'") from None
        return result

    @staticmethod
    def ports(filters: Filters, name: str) -> set[Port]:
        result: set[Port] = set()
        for value in filters[name]:
            if ":" in value:
                raise BadRequest(f"filter for '{name}' should not contain ':': {value}")
            number, slash, protocol = value.partition("/")
            protocol = protocol.lower() if slash else "tcp"
            if protocol not in PROTOCOLS:
                raise BadRequest(f"error while looking up for {name} {value}: invalid protocol")
            start, end = parse_port_range(number)
            result |= {Port(n, protocol) for n in range(start, end + 1)}
        return result

    def wants(self, container: pb.Container, document: Document) -> bool:
        filters, state = self.filters, container.state
        if not self.all and not status.is_running(state):
            return False
        if not filters:
            return True
        spec = container.handle.spec
        return (
            filters.fuzzy("name", (spec.name, f"/{spec.name}"))
            and filters.prefix("id", container.handle.id)
            and filters.exact("status", status.state_name(state))
            and filters.exact("health", status.health_name(state))
            and filters.labels(document.labels)
            and (filters.boolean("is-task") is not True)
            and (not filters["isolation"] or "default" in filters["isolation"])
            and (not self.exit_codes or (self._has_exited(state) and state.exit_code in self.exit_codes))
            and (self.images is None or document.image_id in self.images)
            and (not self.before or spec.created_at < self.before)
            and (not self.since or spec.created_at > self.since)
            and self._volumes(spec)
            and self._networks(spec.endpoints)
            and (not self.published or self._published(spec.ports))
            and (not self.exposed or not set(self.exposed).isdisjoint(parse_exposed(document.exposed)))
        )

    @staticmethod
    def _has_exited(state: pb.ContainerState) -> bool:
        return not status.is_running(state) and state.started_at > 0

    def _volumes(self, spec: pb.ContainerSpec) -> bool:
        wanted = self.filters["volume"]
        return (
            not wanted
            or any(m.volume in wanted or m.destination in wanted for m in spec.mounts)
            or any(m.path in wanted or m.destination in wanted for m in spec.host_mounts)
        )

    def _networks(self, endpoints: Sequence[pb.Endpoint]) -> bool:
        wanted = self.filters["network"]
        if not wanted:
            return True
        for endpoint in endpoints:
            network = self.networks.get(endpoint.network)
            if endpoint.network in wanted or (network is not None and network.name in wanted):
                return True
            if any(len(item) >= 12 and endpoint.network.startswith(item) for item in wanted):
                return True
        return not endpoints and "none" in wanted

    def _published(self, ports: Sequence[pb.PortBinding]) -> bool:
        return any(
            Port(binding.container_port, binding.protocol) in self.published
            or Port(binding.assigned_port or binding.host_port, binding.protocol) in self.published
            for binding in ports
        )
