"""What is wrong with an answer, by Docker's own definition: a list of sentences, empty when nothing is.

Null is allowed where Go writes an empty list; see :mod:`tests.definition.document`. What differs on purpose is
in :mod:`tests.definition.deviations`. Of a long list the beginning is judged: the rest is made by the same code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema

from tests.definition.deviations import EXPERIMENTAL, EXTRA, FREE, NULL, STATUSES
from tests.definition.document import OLDEST, Definition, Operation, definition

__all__ = ["Answer", "objects", "violations"]

ERROR_MEDIA = "application/json"
LIST = 20


class Answer:
    """One answer of the engine, as a client got it."""

    def __init__(
        self,
        *,
        method: str,
        path: str,
        version: tuple[int, int],
        status: int,
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        self.method, self.path, self.version = method, path, version
        self.status, self.headers, self.body = status, headers, body

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


def violations(answer: Answer) -> list[str]:
    judge = definition(answer.version)
    operation = judge.find(answer.method, answer.path)
    if operation is None:
        return _unknown(answer)
    where = f"{operation.name} ({answer.status}, API {answer.version[0]}.{answer.version[1]})"
    if answer.status == 500 and 500 not in operation.responses:
        return [f"{where}: a 500 that the definition does not have"]
    if answer.status >= 400:
        return [f"{where}: {problem}" for problem in _error(answer)]
    if answer.status not in operation.responses and (operation.name, answer.status) not in STATUSES:
        return [f"{where}: not a status of the definition: {sorted(operation.responses)}"]
    return [f"{where}: {problem}" for problem in _body(judge, operation, answer)]


def _unknown(answer: Answer) -> list[str]:
    """Not in the definition of this version: only an error is right."""
    if answer.status < 400 and not EXPERIMENTAL.fullmatch(answer.path):
        return [f"{answer.method} {answer.path}: served, but not in API {answer.version}"]
    return [] if answer.status < 400 else list(_error(answer))


def _error(answer: Answer) -> Iterator[str] | list[str]:
    if answer.method == "HEAD":
        return []
    if answer.media != ERROR_MEDIA:
        return [f"an error of type {answer.media!r}"]
    try:
        value = json.loads(answer.body)
    except ValueError:
        return [f"an error that is not JSON: {answer.body[:80]!r}"]
    if not (
        isinstance(value, dict)
        and list(value) == ["message"]
        and isinstance(value["message"], str)
        and value["message"]
    ):
        return [f"an error that is not a message: {value}"]
    return []


def _body(judge: Definition, operation: Operation, answer: Answer) -> list[str]:
    schema = operation.responses.get(answer.status)
    if answer.method == "HEAD" or answer.status in (101, 204, 304):
        return [f"a body of {len(answer.body)} bytes"] if answer.body else []
    if schema is None or schema.get("type") in ("string", "file"):
        return []
    if not answer.media.endswith("json"):
        return [f"JSON of type {answer.media!r}"]
    problems: list[str] = []
    try:
        values = list(objects(answer.body))
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not values and answer.media == ERROR_MEDIA and not _streams(operation):
        return ["an empty body instead of JSON"]
    validator = _validator(judge, operation.method, operation.path, answer.status)
    for value in values[:LIST]:
        for error in validator.iter_errors(value[:LIST] if isinstance(value, list) else value):
            problems += _told(operation, error, new=answer.version >= OLDEST)
    return sorted(set(problems))


def _streams(operation: Operation) -> bool:
    return operation.path in ("/events", "/containers/{id}/stats", "/images/create", "/images/load", "/build")


def _told(operation: Operation, error: jsonschema.ValidationError, *, new: bool) -> Iterator[str]:
    """The innermost reasons: a choice with null hides them one level down. Old clients got fields that are gone."""
    if error.validator == "anyOf":
        for inner in error.context or ():
            if inner.schema_path[0] == 0:
                yield from _told(operation, inner, new=new)
        return
    place = ".".join("*" if isinstance(part, int) else str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        for name in error.instance:
            dotted = f"{place}.{name}".lstrip(".")
            if new and name not in error.schema["properties"] and (operation.name, dotted) not in EXTRA:
                yield f"unknown field {dotted}"
        return
    if error.instance is None and (operation.name, place) in NULL:
        return
    if any(operation.name == name and place.startswith(start) for name, start in FREE):
        return
    yield f"{place}: {error.message[:300]}"


@cache
def _validator(judge: Definition, method: str, path: str, status: int) -> Any:
    return jsonschema.Draft4Validator(dict(judge.operations[method, path].responses[status] or {}))


def objects(data: bytes) -> Iterator[Any]:
    """The JSON values of a body or a stream: one, or many after another."""
    text = data.decode()
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        value, position = decoder.raw_decode(text, position)
        yield value
