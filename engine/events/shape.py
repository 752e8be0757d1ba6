"""An event as JSON, by API version, and the filters of ``docker events``. No I/O."""

from __future__ import annotations

from typing import Any

from engine.events.hub import Event
from engine.filters import Filters

__all__ = ["ALLOWED", "encode", "wanted"]

ALLOWED = frozenset(
    (
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    )
)
_SECOND = 1_000_000_000


def encode(event: Event, version: tuple[int, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if event.kind in ("container", "image"):
        result["status"] = event.action
        result["id"] = event.actor
        if event.kind == "container":
            result["from"] = event.attributes.get("image", "")
    if version >= (1, 22):
        result["Type"] = event.kind
        result["Action"] = event.action
        result["Actor"] = {"ID": event.actor, "Attributes": dict(event.attributes)}
        if version >= (1, 30):
            result["scope"] = event.scope
    result["time"] = event.time_ns // _SECOND
    result["timeNano"] = event.time_ns
    return result


def wanted(event: Event, filters: Filters) -> bool:
    return (
        _action(event, filters)
        and filters.exact("type", event.kind)
        and filters.exact("scope", event.scope)
        and filters.labels(event.attributes)
        and all(_object(event, filters, kind) for kind in ("container", "volume", "network", "daemon"))
        and _image(event, filters)
        and not any(filters[kind] for kind in ("config", "node", "plugin", "secret", "service"))
    )


def _action(event: Event, filters: Filters) -> bool:
    names = filters["event"]
    return not names or event.action in names or event.action.partition(":")[0] in names


def _object(event: Event, filters: Filters, kind: str) -> bool:
    """By ID, name, or the beginning of either."""
    names = filters[kind]
    if not names:
        return True
    if event.kind != kind:
        return False
    name = event.attributes.get("name", "")
    return any(item and (event.actor.startswith(item) or name.startswith(item)) for item in names)


def _image(event: Event, filters: Filters) -> bool:
    """An image's own events, and those of containers made from it; tags are optional."""
    names = filters["image"]
    if not names:
        return True
    if event.kind == "image":
        known = {event.actor, event.attributes.get("name", "")}
    elif event.kind == "container":
        known = {event.attributes.get("image", "")}
    else:
        return False
    known |= {_without_tag(name) for name in known}
    return not known.isdisjoint(names)


def _without_tag(name: str) -> str:
    bare = name.partition("@")[0]
    head, separator, tag = bare.rpartition(":")
    return head if separator and "/" not in tag else bare
