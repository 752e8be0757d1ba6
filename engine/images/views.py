"""Images as Docker's JSON: list, inspect, history. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.http import BadRequest
from engine.images.index import ImageIndex, StoredImage
from engine.timestamps import ZERO, format_ns, parse_ns

__all__ = ["created_ns", "history", "inspect", "summary"]

_CONTAINERS_SINCE = (1, 43)  # from here on, nothing is an empty list instead of "<none>"
_VIRTUAL_SIZE_UNTIL = (1, 44)
_CONTAINER_CONFIG_UNTIL = (1, 45)
DRIVER = "vmdk"


def created_ns(image: StoredImage) -> int:
    """0 where the configuration does not say, or says nonsense."""
    try:
        return parse_ns(image.config.created, 0)
    except BadRequest:
        return 0


def summary(
    image: StoredImage,
    *,
    version: tuple[int, int],
    tags: Sequence[str],
    digests: Sequence[str],
    shared_size: int = -1,
    containers: int = -1,
) -> dict[str, Any]:
    """One row of GET /images/json. ``tags`` and ``digests`` are those that the filters left."""
    row: dict[str, Any] = {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(tags),
        "RepoDigests": list(digests),
        "Created": created_ns(image) // 1_000_000_000,
        "Size": image.size,
        "SharedSize": shared_size,
        "Labels": dict(image.config.labels) or None,
        "Containers": containers,
    }
    if version < _CONTAINERS_SINCE:
        row["RepoTags"] = row["RepoTags"] or ["<none>:<none>"]
        row["RepoDigests"] = row["RepoDigests"] or ["<none>@<none>"]
    if version < _VIRTUAL_SIZE_UNTIL:
        row["VirtualSize"] = image.size
    return row


def inspect(index: ImageIndex, image: StoredImage, *, version: tuple[int, int], disk: str) -> dict[str, Any]:
    """GET /images/{name}/json. ``disk`` is the path of the top layer's disk."""
    config = image.config
    answer: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": [reference.familiar for reference in index.tags(image.id)],
        "RepoDigests": [reference.familiar for reference in index.digests(image.id)],
        "Parent": image.parent,
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "Created": config.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": _config(config.config),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size,
        "GraphDriver": {"Name": DRIVER, "Data": {"Disk": disk, "Layer": image.top}},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": format_ns(index.last_tagged(image.id))},
    }
    if config.platform.variant:
        answer["Variant"] = config.platform.variant
    if config.platform.os_version:
        answer["OsVersion"] = config.platform.os_version
    if not image.layers:
        answer["RootFS"] = {"Type": "layers"}
    if not config.created and version < _VIRTUAL_SIZE_UNTIL:
        answer["Created"] = ZERO
    if version < _VIRTUAL_SIZE_UNTIL:
        answer["VirtualSize"] = image.size
    if version < _CONTAINER_CONFIG_UNTIL:
        answer["Container"] = ""
        answer["ContainerConfig"] = None
    return answer


_CONFIG_DEFAULTS: Mapping[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_CONFIG_DEFAULTS, **config}


def history(index: ImageIndex, image: StoredImage) -> list[dict[str, Any]]:
    """Newest first; the sizes are those of the layers that the steps made."""
    sizes = iter([layer.size for layer in image.layers])
    rows: list[dict[str, Any]] = []
    for entry in image.config.history:
        try:
            created = parse_ns(entry.created, 0) // 1_000_000_000
        except BadRequest:
            created = 0
        rows.append(
            {
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": entry.created_by,
                "Tags": None,
                "Size": 0 if entry.empty_layer else next(sizes, 0),
                "Comment": entry.comment,
            }
        )
    rows.extend(  # layers that the history does not tell of
        {"Id": "<missing>", "Created": 0, "CreatedBy": "", "Tags": None, "Size": size, "Comment": ""}
        for size in sizes
    )
    rows.reverse()
    if rows:
        rows[0]["Id"] = image.id
        rows[0]["Tags"] = [reference.familiar for reference in index.tags(image.id)] or None
    return rows
