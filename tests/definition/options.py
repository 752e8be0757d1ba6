"""The options of an operation: query parameters, and the fields of its body as dotted paths.

A list or a map with free keys has no part in the path: ``HostConfig.Mounts.Target``,
``NetworkingConfig.EndpointsConfig.Aliases``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.definition.document import Operation

__all__ = ["asked_fields", "fields", "options"]


_SAYS_BY_FALSE = ("EnableIPv4",)


def options(operation: Operation) -> list[str]:
    """All that a client may say, in the order of the definition; headers have a colon."""
    headers = [f"{name}:" for name in operation.headers if name.lower() != "content-type"]
    return [*(f"?{name}" for name in operation.query), *headers, *fields(operation.body or {})]


def fields(schema: Mapping[str, Any], place: str = "") -> Iterator[str]:
    schema = schema["anyOf"][0] if "anyOf" in schema else schema
    if "items" in schema or isinstance(schema.get("additionalProperties"), Mapping):
        inner = schema.get("items") or schema["additionalProperties"]
        below = list(fields(inner, place))
        yield from below or [place]
        return
    if "properties" not in schema:
        if place:
            yield place
        return
    for name, part in schema["properties"].items():
        yield from fields(part, f"{place}.{name}" if place else name)


def asked_fields(schema: Mapping[str, Any], value: Any, place: str = "") -> Iterator[str]:
    """Those of :func:`fields` that a body gives a value other than nothing, which clients send along with all they have."""
    schema = schema["anyOf"][0] if "anyOf" in schema else schema
    if value in (None, "", 0, -1, [], {}) and not place.endswith(_SAYS_BY_FALSE):
        return
    if "items" in schema:
        for item in value if isinstance(value, list) else [value]:
            yield from asked_fields(schema["items"], item, place)
    elif isinstance(schema.get("additionalProperties"), Mapping):
        for item in value.values() if isinstance(value, dict) else []:
            if list(fields(schema["additionalProperties"], "x")) == ["x"]:
                yield place
            yield from asked_fields(schema["additionalProperties"], item, place)
    elif "properties" in schema:
        known = {name.lower(): name for name in schema["properties"]}
        for key, item in value.items() if isinstance(value, dict) else []:
            name = known.get(str(key).lower())
            if name is not None:
                yield from asked_fields(
                    schema["properties"][name], item, f"{place}.{name}" if place else name
                )
    elif place:
        yield place
