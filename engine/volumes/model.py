"""What a client may ask of a volume, and how one looks to it. No I/O."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from engine.containers.model import Text, WireModel
from engine.filters import Filters
from engine.http import BadRequest, NotFound, Unsupported
from engine.timestamps import format_ns
from portlayer import portlayer_pb2 as pb

__all__ = ["ANONYMOUS", "DRIVERS", "CreateVolume", "as_json", "selected", "wanted_volume"]

DRIVERS = ("local", "vsphere")  # two names of one store
ANONYMOUS = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_NAME_LIMIT = 255


class CreateVolume(WireModel):
    Name: Text = ""
    Driver: Text = ""
    DriverOpts: dict[Text, Text] = Field(default_factory=dict)
    Labels: dict[Text, Text] = Field(default_factory=dict)
    ClusterVolumeSpec: dict[str, Any] | None = None


def wanted_volume(body: CreateVolume) -> pb.Volume:
    """The port layer's message; a volume without a name gets one and is anonymous."""
    if body.ClusterVolumeSpec is not None:
        raise Unsupported("cluster volumes (ClusterVolumeSpec) are not supported: this is no swarm")
    driver = body.Driver or DRIVERS[0]
    if driver not in DRIVERS:
        what = f'error looking up volume plugin {driver}: plugin "{driver}" not found'
        raise NotFound(f"create {body.Name}: {what}" if body.Name else what)
    labels = dict(body.Labels)
    if body.Name:
        check_name(body.Name)
    else:
        labels.setdefault(ANONYMOUS, "")
    return pb.Volume(
        name=body.Name or secrets.token_hex(32),
        driver=driver,
        options=body.DriverOpts,
        labels=labels,
        anonymous=not body.Name,
    )


def check_name(name: str) -> None:
    if len(name) < 2:
        raise BadRequest(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > _NAME_LIMIT:
        raise BadRequest(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )


def as_json(volume: pb.Volume, *, status: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "CreatedAt": format_ns(volume.created_at),
        "Driver": volume.driver or DRIVERS[0],
        "Labels": dict(volume.labels) or None,
        "Mountpoint": volume.path,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }
    if status:
        answer["Status"] = {
            "VolumeStore": volume.store,
            "Capacity": volume.capacity,
            "Used": volume.used_bytes,
        }
    return answer


def selected(volumes: Iterable[pb.Volume], filters: Filters) -> list[pb.Volume]:
    """What the filters of `docker volume ls` leave."""
    dangling = filters.boolean("dangling")
    return [
        volume
        for volume in volumes
        if dangling in (None, not volume.users)
        and filters.fuzzy("name", [volume.name])
        and filters.exact("driver", volume.driver or DRIVERS[0])
        and filters.labels(volume.labels)
    ]
