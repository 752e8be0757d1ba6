"""Is this spec one we can honour? Caps on every length and count, no I/O.

What is refused here is refused by name, before anything exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from portlayer.errors import PortLayerError
from portlayer.hypervisor.base import Capabilities
from portlayer.portlayer_pb2 import ContainerSpec, Handle, Reason

__all__ = ["ID", "NAME", "check_change", "check_handle", "check_spec"]

ID = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_LAYER = re.compile(r"sha256:[0-9a-f]{64}")
_HIGHEST_SIGNAL = 64
_MOST_PORTS = 4096
_MOST_WORDS = 65536
_LARGEST_SPEC = 3 << 20
_DRIVERS = ("", "journal", "none", "syslog")

# May change while the VM runs; everything else needs a stopped container.
_LIVE_FIELDS = frozenset({"name", "metadata", "endpoints", "restart"})
_FIXED_FIELDS = frozenset({"layer", "created_at", "disk_size"})


def _refuse(message: str, reason: Reason.ValueType = Reason.UNSPECIFIED) -> None:
    raise PortLayerError(reason, message)


def check_handle(handle: Handle) -> None:
    if not ID.fullmatch(handle.id):
        _refuse("a container ID has 64 hexadecimal digits")
    if not handle.HasField("spec"):
        _refuse(f"commit of container {handle.id[:12]}: the handle has no spec")


def check_spec(spec: ContainerSpec, capabilities: Capabilities) -> None:
    """Raise PortLayerError for the first thing that cannot be honoured."""
    size = spec.ByteSize()
    if size > _LARGEST_SPEC:
        _refuse(f"the container's specification has {size} bytes, more than {_LARGEST_SPEC}")
    if not NAME.fullmatch(spec.name):
        _refuse(f"invalid container name {spec.name[:80]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] is allowed")
    if spec.layer and not _LAYER.fullmatch(spec.layer):
        _refuse(f"{spec.layer[:80]!r} is not a layer's chain ID")
    if not spec.process.argv:
        _refuse("no command specified")
    if len(spec.process.argv) > _MOST_WORDS or len(spec.process.env) > _MOST_WORDS:
        _refuse("too many arguments or environment variables", Reason.LIMIT_EXCEEDED)
    _check_mounts(spec, capabilities)
    _check_endpoints(spec, capabilities)
    _check_numbers(spec)
    if spec.log.driver not in _DRIVERS:
        _refuse(
            f"log driver {spec.log.driver!r} is not supported: use journal, syslog or none",
            Reason.NOT_SUPPORTED,
        )


def _check_mounts(spec: ContainerSpec, capabilities: Capabilities) -> None:
    destinations = [mount.destination for mount in spec.mounts]
    destinations += [mount.destination for mount in spec.host_mounts]
    destinations += [mount.destination for mount in spec.tmpfs]
    destinations += spec.engine_sockets
    for destination in destinations:
        if not destination.startswith("/") or "\0" in destination:
            _refuse(f"invalid mount destination {destination[:80]!r}: it must be an absolute path")
    _no_twins(destinations, "mount destination")
    for mount in spec.mounts:
        if not mount.volume:
            _refuse(f"the mount at {mount.destination} names no volume")
        if mount.subpath.startswith("/") or ".." in mount.subpath.split("/"):
            _refuse(f"invalid volume subpath {mount.subpath[:80]!r}: it must lie inside the volume")
    if spec.host_mounts and not capabilities.max_shares:
        _refuse(
            f"bind mount of host path {spec.host_mounts[0].path[:200]} is not supported: "
            "container VMs of this virtual container host do not see the host's file system; use a volume",
            Reason.NOT_SUPPORTED,
        )
    if len(spec.host_mounts) > capabilities.max_shares:
        _refuse(f"a VM has at most {capabilities.max_shares} mounts of host paths", Reason.LIMIT_EXCEEDED)
    volumes = {mount.volume for mount in spec.mounts}
    if len(volumes) + 1 > capabilities.max_disks:
        _refuse(
            f"{len(volumes)} volumes: a VM has at most {capabilities.max_disks - 1}", Reason.LIMIT_EXCEEDED
        )


def _check_endpoints(spec: ContainerSpec, capabilities: Capabilities) -> None:
    _no_twins([endpoint.network for endpoint in spec.endpoints], "network")
    if len(spec.endpoints) > capabilities.max_nics:
        _refuse(
            f"{len(spec.endpoints)} networks: a VM has at most {capabilities.max_nics} NICs",
            Reason.LIMIT_EXCEEDED,
        )
    if len(spec.ports) > _MOST_PORTS:
        _refuse(f"more than {_MOST_PORTS} published ports", Reason.LIMIT_EXCEEDED)
    for port in spec.ports:
        if not 0 < port.container_port < 65536 or port.host_port >= 65536 or port.host_port_end >= 65536:
            _refuse(f"invalid port mapping {port.host_port}:{port.container_port}")
        if port.protocol not in ("tcp", "udp", "sctp"):
            _refuse(f"unknown port protocol {port.protocol[:20]!r}")


def _check_numbers(spec: ContainerSpec) -> None:
    if not 0 <= spec.stop_signal <= _HIGHEST_SIGNAL:
        _refuse(f"invalid stop signal {spec.stop_signal}")
    if spec.stop_timeout < -1:
        _refuse(f"invalid stop timeout {spec.stop_timeout}: seconds, or -1 for ever")


def _no_twins(values: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            _refuse(f"duplicate {what} {value[:80]}")
        seen.add(value)


def check_change(name: str, old: ContainerSpec, new: ContainerSpec, *, running: bool) -> None:
    """Raise when ``new`` changes what cannot change, or not now."""
    changed = set(_changed_fields(old, new))
    if fixed := sorted(changed & _FIXED_FIELDS):
        _refuse(f"container {name}: {', '.join(fixed)} cannot change after create", Reason.NOT_SUPPORTED)
    if running and (frozen := sorted(changed - _LIVE_FIELDS)):
        _refuse(
            f"container {name} is running: stop it before changing {', '.join(frozen)}",
            Reason.ALREADY_RUNNING,
        )


def _changed_fields(old: ContainerSpec, new: ContainerSpec) -> Iterable[str]:
    before = {field.name: value for field, value in old.ListFields()}
    after = {field.name: value for field, value in new.ListFields()}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name
