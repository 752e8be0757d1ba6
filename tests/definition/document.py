"""Docker's API definition as the judge needs it: operations by method and path, schemas made strict.

The definition is Swagger 2.0 written by hand. Three things are made of it that jsonschema understands:
``x-nullable`` becomes a choice with ``null``; ``allOf`` becomes one object; an object that lists its
properties allows no others. Go writes an empty list or map as ``null`` wherever it likes, and every client
lives with that: so may we.
"""

from __future__ import annotations

import functools
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["NEWEST", "OLDEST", "Definition", "Operation", "definition"]

ARCHIVE = Path(__file__).with_name("moby-api.tar.xz")
OLDEST, NEWEST = (1, 40), (1, 50)
_PARAMETER = re.compile(r"\{(\w+)\}")
_PREFIX = "#/definitions/"


@dataclass(frozen=True, kw_only=True)
class Operation:
    method: str
    path: str
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None  # schema, expanded
    responses: Mapping[int, Mapping[str, Any] | None] = field(default_factory=dict)  # status -> schema

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


class Definition:
    def __init__(self, text: bytes) -> None:
        self._document = yaml.load(text, yaml.CSafeLoader)
        self.operations: dict[tuple[str, str], Operation] = {}
        patterns: list[tuple[int, re.Pattern[str], str]] = []
        for path, methods in self._document["paths"].items():
            for method, raw in methods.items():
                if method != "parameters":
                    self.operations[method.upper(), path] = self._operation(method.upper(), path, raw)
            literal = len(_PARAMETER.sub("", path))
            patterns.append((literal, re.compile(_PARAMETER.sub("(?:.+)", path)), path))
        self._patterns = sorted(patterns, key=lambda item: (-item[0], item[2]))

    def find(self, method: str, path: str) -> Operation | None:
        for _, pattern, template in self._patterns:
            if (method, template) in self.operations and pattern.fullmatch(path):
                return self.operations[method, template]
        return None

    def _operation(self, method: str, path: str, raw: Mapping[str, Any]) -> Operation:
        places: dict[str, dict[str, Any]] = {
            "query": {},
            "header": {},
            "body": {},
            "path": {},
            "formData": {},
        }
        for parameter in raw.get("parameters", ()):
            places[parameter["in"]][parameter["name"]] = parameter
        body = next(iter(places["body"].values()), None)
        return Operation(
            method=method,
            path=path,
            query=places["query"],
            headers=places["header"],
            body=self.expand(body["schema"]) if body and "schema" in body else None,
            responses={
                int(status): self.expand(answer["schema"]) if "schema" in answer else None
                for status, answer in raw["responses"].items()
            },
        )

    def schema(self, name: str) -> dict[str, Any]:
        return self._named(name)

    @functools.cache  # noqa: B019 - lives as long as the definition
    def _named(self, name: str) -> dict[str, Any]:
        return self.expand(self._document["definitions"][name])

    def expand(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A JSON schema without references, strict in what the module's head says."""
        if "$ref" in raw:
            found = self._named(raw["$ref"].removeprefix(_PREFIX))
            return _or_null(found) if raw.get("x-nullable") else found
        if "allOf" in raw:
            return self._merged(raw)
        result: dict[str, Any] = {
            key: raw[key] for key in ("enum", "pattern", "minLength", "maxLength", "required") if key in raw
        }
        kind = raw.get("type")
        if isinstance(kind, str):
            result["type"] = kind
        if "properties" in raw:
            result["type"] = "object"
            result["properties"] = {name: self.expand(item) for name, item in raw["properties"].items()}
            result["additionalProperties"] = False
        if isinstance(raw.get("additionalProperties"), Mapping):
            result["additionalProperties"] = self.expand(raw["additionalProperties"])
        if "items" in raw and isinstance(raw["items"], Mapping):
            result["items"] = self.expand(raw["items"])
        return _or_null(result) if raw.get("x-nullable") or kind in ("array", "object") else result

    def _merged(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        parts = [_bare(self.expand(part)) for part in raw["allOf"]]
        rest = {key: value for key, value in raw.items() if key in ("properties", "required")}
        if rest:
            parts.append(_bare(self.expand({"type": "object", **rest})))
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for part in parts:
            merged["properties"].update(part.get("properties", {}))
            merged["required"] += part.get("required", [])
            if "properties" in part:
                merged["additionalProperties"] = False
        if not merged["required"]:
            del merged["required"]
        return _or_null(merged)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return schema if "anyOf" in schema else {"anyOf": [schema, {"type": "null"}]}


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    bare: dict[str, Any] = schema["anyOf"][0] if "anyOf" in schema else schema
    return bare


@functools.cache
def definition(version: tuple[int, int] = NEWEST) -> Definition:
    """The definition of one API version; what is older than all that the judge knows gets the oldest."""
    version = min(max(version, OLDEST), NEWEST)
    with tarfile.open(ARCHIVE) as archive:
        member = archive.extractfile(f"v{version[0]}.{version[1]}.yaml")
        assert member is not None
        return Definition(member.read())
