"""Hypothesis strategies: requests of an operation that are nearly right, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.definition.document import Operation

__all__ = ["body", "path", "query"]

DEPTH = 4

junk_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
junk = st.recursive(
    junk_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
words = st.text(max_size=12) | st.sampled_from(
    [
        "busybox",
        "box",
        "80/tcp",
        "/data",
        "data:/x",
        "always",
        "bridge",
        "none",
        "CMD",
        "1h",
        "-1",
        "\0",
        "ÿ",
        "a" * 300,
    ]
)
names = st.sampled_from(
    ["box", "none", "a/b", "..", "%2e", "ÿ", "\n", "x" * 300, "-", "sha256:" + "0" * 64]
) | st.text(min_size=1, max_size=12)
query_values = (
    st.text(max_size=16)
    | st.sampled_from(
        ["0", "1", "true", "-1", "9" * 30, "{", "null", "[]", "%", "1.5", "NaN", "1h", "2026-01-01T00:00:00Z"]
    )
    | st.sampled_from(
        [
            '{"name":["a"]}',
            '{"label":{"a":true}}',
            '{"until":["1h"]}',
            '{"os":"linux"}',
            "ctrl-",
            "busybox",
            "linux/amd64",
            "TERM",
        ]
    )
)


def path(operation: Operation) -> st.SearchStrategy[str]:
    """The path with its parameters filled in, decoded as a handler's router sees it."""
    pieces = [part.partition("}") for part in operation.path.split("{")]
    first, rest = pieces[0][0], [after for _, _, after in pieces[1:]]
    return st.tuples(*(names for _ in rest)).map(
        lambda values: first + "".join(value + after for value, after in zip(values, rest, strict=True))
    )


def query(operation: Operation) -> st.SearchStrategy[str]:
    if not operation.query:
        return st.just("")
    parameters = st.dictionaries(st.sampled_from(sorted(operation.query)), query_values, max_size=4)
    return parameters.map(
        lambda found: "&".join(f"{name}={quote(value, errors='replace')}" for name, value in found.items())
    )


def body(operation: Operation) -> st.SearchStrategy[bytes]:
    if operation.body is None:
        return st.just(b"") | st.binary(max_size=64)
    right = _value(operation.body, DEPTH)
    encoded = (right | right | right | junk).map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
    )
    return encoded | st.binary(max_size=64) | st.just(b"")


def _value(schema: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    """What the schema asks for, one time in eight something else."""
    wanted = _right(schema, depth)
    return st.integers(0, 7).flatmap(lambda dice: junk if dice == 0 else wanted)


def _right(schema: Mapping[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if "anyOf" in schema:
        return _right(schema["anyOf"][0], depth) | st.none()
    if "enum" in schema:
        return st.sampled_from(list(schema["enum"]))
    kind = schema.get("type", "string")
    if kind == "object":
        if depth == 0:
            return st.just({})
        if "properties" in schema:
            parts = {name: _value(item, depth - 1) for name, item in schema["properties"].items()}
            some = st.sets(st.sampled_from(sorted(parts)), max_size=5)
            return some.flatmap(
                lambda chosen: st.fixed_dictionaries({name: parts[name] for name in sorted(chosen)})
            )
        values = schema.get("additionalProperties") or {}
        return st.dictionaries(words, _value(values, depth - 1), max_size=2)
    if kind == "array":
        return st.lists(_value(schema.get("items") or {}, depth - 1), max_size=2) if depth else st.just([])
    return {
        "integer": st.integers() | st.integers(-1, 3),
        "number": st.floats(),
        "boolean": st.booleans(),
    }.get(kind, words)
