"""From Binds, Mounts, Tmpfs, VolumesFrom and Volumes to one list of mounts. No I/O.

Docker's order: what other containers lend first, then binds, then mounts, and a
volume of the image's only where nothing else is mounted. The plan names what
must exist; :mod:`engine.containers.create` makes it so.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.containers.hostconfig import VOLUME_DRIVERS, BindSpec, HostConfig, Mount, TmpfsSpec
from engine.http import BadRequest, Unsupported
from tether import tether_pb2

__all__ = ["ENGINE_SOCKETS", "MountPlan", "Plan", "check_volumes_from", "plan", "shown"]

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_WITHOUT_MEANING = frozenset(("z", "Z", "consistent", "cached", "delegated", "default"))  # SELinux, macOS
ENGINE_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")  # CI runners and Testcontainers bind them
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_TMPFS_FLAGS = {
    "exec": "noexec",
    "suid": "nosuid",
    "dev": "nodev",
    "atime": "noatime",
    "diratime": "nodiratime",
    "async": "sync",
    "rw": "ro",
    "relatime": "norelatime",
    "strictatime": "nostrictatime",
}
_TMPFS_VALUES = frozenset(("mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_DEFAULT = ("noexec", "nosuid", "nodev")
_OPPOSITES = _TMPFS_FLAGS | {off: on for on, off in _TMPFS_FLAGS.items()}


@dataclass(frozen=True, kw_only=True)
class MountPlan:
    """One volume or host path at one place. Neither: an anonymous volume is to be made."""

    destination: str
    volume: str = ""
    host_path: str = ""
    create_path: bool = False  # a directory, when nothing is there
    engine_socket: bool = False  # our own, whatever lies at that path of the host
    read_only: bool = False
    no_copy: bool = False
    subpath: str = ""
    mode: str = ""  # as given, shown again by inspect
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = VOLUME_DRIVERS[0]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    volumes: Sequence[MountPlan]
    tmpfs: Sequence[tether_pb2.Tmpfs]


def check_volumes_from(text: str) -> tuple[str, bool | None]:
    """ "container[:mode]" → container and whether it is read-only (``None`` = as there)."""
    name, separator, mode = text.partition(":")
    if not name:
        raise BadRequest("volumes-from specification cannot be an empty string")
    if not separator:
        return name, None
    words = mode.split(",")
    if not set(words) <= {"ro", "rw", "z", "Z"} or len({"ro", "rw"} & set(words)) > 1:
        raise BadRequest(f"invalid mode: {mode}")
    return name, True if "ro" in words else False if "rw" in words else None


def plan(host: HostConfig, image_and_user_volumes: Iterable[str], lent: Iterable[MountPlan]) -> Plan:
    """``lent``: the mounts that VolumesFrom brings, in order; later ones win."""
    mounts: dict[str, MountPlan] = {item.destination: item for item in lent}
    taken: set[str] = set()
    tmpfs: dict[str, tether_pb2.Tmpfs] = {}

    def take(destination: str) -> None:
        if destination in taken:
            raise BadRequest(f"Duplicate mount point: {destination}")
        taken.add(destination)
        mounts.pop(destination, None)

    default_driver = host.VolumeDriver or VOLUME_DRIVERS[0]
    for text in host.Binds:
        bind = replace(_parse_bind(text), driver=default_driver)
        take(bind.destination)
        mounts[bind.destination] = bind
    for mount in host.Mounts:
        if mount.Type == "tmpfs":
            entry = _tmpfs_mount(mount)
            take(entry.destination)
            tmpfs[entry.destination] = entry
        else:
            volume = _bind_mount(mount) if mount.Type == "bind" else _volume_mount(mount)
            take(volume.destination)
            mounts[volume.destination] = volume
    for target, options in host.Tmpfs.items():
        destination = _destination(target)
        take(destination)
        tmpfs[destination] = tether_pb2.Tmpfs(
            destination=destination, options=_tmpfs_options(options.split(",") if options else [])
        )
    for target in image_and_user_volumes:
        destination = _destination(target)
        if destination not in mounts and destination not in tmpfs:
            mounts[destination] = MountPlan(destination=destination, driver=default_driver)
    return Plan(volumes=list(mounts.values()), tmpfs=list(tmpfs.values()))


def _destination(path: str) -> str:
    if not path.startswith("/"):
        raise BadRequest(f"invalid mount path: '{path}' mount path must be absolute")
    clean = "/" + posixpath.normpath(path).lstrip("/")
    if clean == "/":
        raise BadRequest("invalid specification: destination can't be '/'")
    return clean


def _mount_target(mount: Mount) -> str:
    try:
        return _destination(mount.Target)
    except BadRequest as error:
        raise BadRequest(f'invalid mount config for type "{mount.Type}": {error.message}') from error


def _parse_bind(text: str) -> MountPlan:
    parts = text.split(":")
    if len(parts) == 1:
        return MountPlan(destination=_destination(parts[0]))
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise BadRequest(f"invalid volume specification: '{text}'")
    source, target = parts[0], parts[1]
    words = parts[2].split(",") if len(parts) == 3 else []
    read_only = no_copy = False
    host = source.startswith("/")
    for word in words:
        if word in ("ro", "rw"):
            read_only = word == "ro"
        elif word == "nocopy" and not host:
            no_copy = True
        elif host and word in _PROPAGATIONS:
            _check_propagation(word)
        elif word not in _WITHOUT_MEANING:
            raise BadRequest(f"invalid mode: {parts[2]}")
    if len({"ro", "rw"} & set(words)) > 1 or len(set(words)) != len(words):
        raise BadRequest(f"invalid mode: {parts[2]}")
    try:
        destination = _destination(target)
    except BadRequest as error:
        raise BadRequest(
            f"invalid volume specification: '{text}': "
            f'invalid mount config for type "{"bind" if host else "volume"}": {error.message}'
        ) from error
    return MountPlan(
        destination=destination,
        volume="" if host else _volume_name(source),
        host_path=_clean(source) if host else "",
        engine_socket=host and _clean(source) in ENGINE_SOCKETS,
        create_path=host,
        read_only=read_only,
        no_copy=no_copy,
        mode=",".join(word for word in words if word != "nocopy"),
    )


def _volume_name(source: str) -> str:
    if not _VOLUME_NAME.fullmatch(source) or len(source) > 255:
        raise BadRequest(
            f'create {source}: "{source}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    return source


def _volume_mount(mount: Mount) -> MountPlan:
    if mount.Type != "volume":
        if mount.Type in ("image", "npipe", "cluster"):
            raise Unsupported(f"mounts of type {mount.Type} are not supported")
        raise BadRequest(f'invalid mount config for type "{mount.Type}": mount type unknown')
    for name in ("BindOptions", "TmpfsOptions", "ImageOptions", "ClusterOptions"):
        if getattr(mount, name) is not None:
            raise BadRequest(f'{name} must not be specified on mount type "volume"')
    if not mount.Target:
        raise BadRequest('invalid mount config for type "volume": field Target must not be empty')
    options = mount.VolumeOptions
    if not mount.Source and mount.ReadOnly:
        raise BadRequest(
            'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'
        )
    subpath = options.Subpath if options else ""
    if subpath:
        if not mount.Source:
            raise BadRequest(
                'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'
            )
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise BadRequest(
                'invalid mount config for type "volume": subpath must be a relative path within the volume'
            )
    driver = options.DriverConfig if options else None
    if driver and driver.Name not in ("", *VOLUME_DRIVERS):
        raise Unsupported(f"volume driver {driver.Name} is not supported: use local or vsphere")
    return MountPlan(
        destination=_mount_target(mount),
        volume=_volume_name(mount.Source) if mount.Source else "",
        read_only=mount.ReadOnly,
        no_copy=bool(options and options.NoCopy),
        subpath=subpath,
        labels=options.Labels if options else {},
        driver=(driver.Name if driver else "") or VOLUME_DRIVERS[0],
        options=driver.Options if driver else {},
    )


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _check_propagation(word: str) -> None:
    """A guest's mounts are its own: nothing is propagated in or out."""
    if word not in ("", "private", "rprivate"):
        raise Unsupported(f"bind propagation {word} is not supported: a container VM has its own mounts")


def _bind_mount(mount: Mount) -> MountPlan:
    where = 'invalid mount config for type "bind"'
    for name in ("VolumeOptions", "TmpfsOptions", "ImageOptions", "ClusterOptions"):
        if getattr(mount, name) is not None:
            raise BadRequest(f"{where}: field {name} must not be specified")
    for name in ("Source", "Target"):
        if not getattr(mount, name):
            raise BadRequest(f"{where}: field {name} must not be empty")
    if not mount.Source.startswith("/"):
        raise BadRequest(f"{where}: invalid mount path: '{mount.Source}' mount path must be absolute")
    options = mount.BindOptions or BindSpec()
    if options.Propagation not in ("", *_PROPAGATIONS):
        raise BadRequest(f"{where}: invalid propagation mode: {options.Propagation}")
    _check_propagation(options.Propagation)
    for name in ("NonRecursive", "ReadOnlyNonRecursive"):
        if getattr(options, name):
            raise Unsupported(f"BindOptions.{name} is not supported: a share holds what is mounted below it")
    return MountPlan(
        destination=_mount_target(mount),
        host_path=_clean(mount.Source),
        engine_socket=_clean(mount.Source) in ENGINE_SOCKETS,
        create_path=options.CreateMountpoint,
        read_only=mount.ReadOnly,
    )


def _tmpfs_mount(mount: Mount) -> tether_pb2.Tmpfs:
    if mount.Source:
        raise BadRequest('invalid mount config for type "tmpfs": field Source must not be specified')
    for name in ("BindOptions", "VolumeOptions", "ImageOptions", "ClusterOptions"):
        if getattr(mount, name) is not None:
            raise BadRequest(f'{name} must not be specified on mount type "tmpfs"')
    if not mount.Target:
        raise BadRequest('invalid mount config for type "tmpfs": field Target must not be empty')
    wanted = mount.TmpfsOptions or TmpfsSpec()
    if wanted.SizeBytes < 0 or wanted.Mode < 0:
        raise BadRequest('invalid mount config for type "tmpfs": size and mode must not be negative')
    words: list[str] = []
    for option in wanted.Options:
        if not 1 <= len(option) <= 2:
            raise BadRequest('invalid mount config for type "tmpfs": invalid option array length')
        words.append("=".join(option))
    if wanted.SizeBytes:
        words.append(f"size={wanted.SizeBytes}")
    if wanted.Mode:
        words.append(f"mode={wanted.Mode:o}")
    if mount.ReadOnly:
        words.append("ro")
    return tether_pb2.Tmpfs(destination=_mount_target(mount), options=_tmpfs_options(words))


def _tmpfs_options(words: Iterable[str]) -> list[str]:
    """The defaults and the user's, who wins; an unknown word is refused."""
    result = list(_TMPFS_DEFAULT)
    for word in words:
        name = word.partition("=")[0]
        if name in _TMPFS_VALUES and "=" in word:
            result = [item for item in result if item.partition("=")[0] != name]
        elif word in _OPPOSITES:
            result = [item for item in result if item not in (word, _OPPOSITES[word])]
        else:
            raise BadRequest(f'invalid tmpfs option ["{word}"]')
        result.append(word)
    return result


def shown(item: MountPlan, *, name: str = "", source: str = "", driver: str = "") -> dict[str, Any]:
    """The entry of inspect's Mounts."""
    if item.host_path:
        return {
            "Type": "bind",
            "Source": item.host_path,
            "Destination": item.destination,
            "Mode": item.mode,
            "RW": not item.read_only,
            "Propagation": "rprivate",
        }
    return {
        "Type": "volume",
        "Name": name,
        "Source": source,
        "Destination": item.destination,
        "Driver": driver or "local",
        "Mode": item.mode,
        "RW": not item.read_only,
        "Propagation": "",
    }
