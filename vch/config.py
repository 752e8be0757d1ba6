"""The frozen configuration of one virtual container host, as JSON on disk.

``machine`` writes it once at create; engine and port layer read it at start.
Unknown keys are refused: a typo must not silently change a tenant's limits.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Defaults",
    "Guest",
    "Registry",
    "Tls",
    "TlsMode",
    "VchConfig",
    "VchConfigError",
    "VchPaths",
]


class VchConfigError(Exception):
    """The file cannot be read as a VCH configuration; the message names the key."""


class TlsMode(enum.Enum):
    NONE = "none"  # no TCP listener at all unless `port` is set: then plain text, shouted about
    SERVER = "server"  # clients verify us
    MUTUAL = "mutual"  # and we verify them


@dataclass(frozen=True, kw_only=True)
class Tls:
    mode: TlsMode = TlsMode.NONE
    host: str = "127.0.0.1"
    port: int = 0  # 0 = no TCP listener
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What container VMs boot from (made by imagebuild)."""

    kernel: Path
    initrd: Path
    iso: Path | None = None
    profile: str = "fast"  # "fast" | "vsphere"
    accel: str = "auto"  # "auto" | "kvm" | "tcg"
    cmdline: str = ""  # appended


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a container VM gets when `docker run` does not say."""

    memory_mib: int = 1024
    cpus: int = 1
    disk_bytes: int = 10 << 30


@dataclass(frozen=True, kw_only=True)
class Registry:
    insecure: tuple[str, ...] = ()  # "host:port" or CIDR
    mirrors: tuple[str, ...] = ()  # URLs tried for the default registry's short names
    allowed: tuple[str, ...] = ()  # empty = all


@dataclass(frozen=True, kw_only=True)
class VchConfig:
    name: str
    id: str  # 32 hex digits
    root: Path  # durable state
    run: Path  # sockets and pid files
    guest: Guest
    bridge_range: str = "172.30.0.0/16"  # subnets of bridge networks are cut from it
    bridge_width: int = 24
    bridge_range_v6: str = ""  # "" = an fd00::/8 range derived from `id`
    dns: tuple[str, ...] = ()  # upstream servers; empty = the host's resolv.conf
    volume_stores: dict[str, Path] = field(default_factory=dict)  # label -> directory
    shared_paths: tuple[Path, ...] = ()  # host paths at or below these may be mounted into containers
    host_access: bool = False  # containers may use the host's services, by their gateway's address
    docker_group: str = "docker"
    tls: Tls = field(default_factory=Tls)
    defaults: Defaults = field(default_factory=Defaults)
    registry: Registry = field(default_factory=Registry)
    max_containers: int = 0  # 0 = no limit
    max_memory_mib: int = 0  # sum over running container VMs
    max_cpus: int = 0
    qemu_user: str = "mooring"  # unprivileged user the VMs run as
    hypervisor: str = "qemu"
    version: int = 1

    @property
    def paths(self) -> VchPaths:
        return VchPaths(root=self.root, run=self.run)

    @classmethod
    def load(cls, path: Path) -> VchConfig:
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise VchConfigError(f"{path}: {error}") from error
        return typing.cast(VchConfig, _decode(cls, raw, str(path)))

    def save(self, path: Path) -> None:
        """Write, fsync, rename: after a crash the old file or the new one is there, whole."""
        temporary = path.with_name(f".new-{path.name}")
        with temporary.open("w") as file:
            json.dump(_encode(self), file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@dataclass(frozen=True, kw_only=True)
class VchPaths:
    """Every path of a VCH on a `qemu` host; docs/architecture.md draws the tree."""

    root: Path
    run: Path

    @property
    def config(self) -> Path:
        return self.root / "vch.json"

    @property
    def vms(self) -> Path:
        return self.root / "vms"

    @property
    def containers(self) -> Path:
        return self.root / "containers"

    @property
    def layers(self) -> Path:
        return self.root / "layers"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def networks(self) -> Path:
        return self.root / "networks"

    @property
    def kv(self) -> Path:
        return self.root / "kv"

    @property
    def spool(self) -> Path:
        """The engine's unnamed temporary files; always empty to look at."""
        return self.root / "spool"

    @property
    def guest(self) -> Path:
        """What the VCH's container VMs boot from."""
        return self.root / "guest"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def accelerator(self) -> Path:
        """What the accelerator probe found, for one boot of the host."""
        return self.root / "accelerator.json"

    @property
    def docker_socket(self) -> Path:
        return self.run / "docker.sock"

    @property
    def portlayer_socket(self) -> Path:
        return self.run / "portlayer.sock"

    def vm_run(self, vm: str) -> Path:
        """Sockets of one VM; short, because a socket's path is at most 107 bytes."""
        return self.run / "vm" / vm[:16]


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return value


def _decode(kind: Any, raw: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):  # the only unions are `X | None`
        if raw is None:
            return None
        return _decode(typing.get_args(kind)[0], raw, where)
    if origin is tuple:
        if not isinstance(raw, list):
            raise VchConfigError(f"{where}: expected a list")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, entry, f"{where}[{n}]") for n, entry in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, dict):
            raise VchConfigError(f"{where}: expected an object")
        item = typing.get_args(kind)[1]
        return {key: _decode(item, entry, f"{where}.{key}") for key, entry in raw.items()}
    if dataclasses.is_dataclass(kind):
        if not isinstance(raw, dict):
            raise VchConfigError(f"{where}: expected an object")
        hints = typing.get_type_hints(kind)
        for key in raw:
            if key not in hints:
                raise VchConfigError(f"{where}: unknown key {key!r}")
        values = {key: _decode(hints[key], entry, f"{where}.{key}") for key, entry in raw.items()}
        try:
            return typing.cast(Any, kind)(**values)
        except TypeError as error:
            raise VchConfigError(f"{where}: {error}") from error
    if kind is Path and isinstance(raw, str):
        return Path(raw)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(raw)
        except ValueError as error:
            raise VchConfigError(f"{where}: {error}") from error
    if kind in (str, int, bool) and type(raw) is kind:
        return raw
    raise VchConfigError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {raw!r}")
