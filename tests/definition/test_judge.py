"""The judge itself: right answers pass, each kind of wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.definition.document import NEWEST, definition
from tests.definition.judge import Answer, objects, violations

VOLUME = {"Name": "a", "Driver": "local", "Mountpoint": "/a", "Labels": None, "Scope": "local", "Options": {}}


def answer(
    value: Any,
    path: str = "/volumes/a",
    status: int = 200,
    media: str = "application/json",
    method: str = "GET",
) -> list[str]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return violations(
        Answer(
            method=method,
            path=path,
            version=NEWEST,
            status=status,
            headers={"content-type": media},
            body=body,
        )
    )


def test_right_answers() -> None:
    assert answer(VOLUME) == []
    assert answer({"message": "get a: no such volume"}, status=404) == []
    assert answer(b"", path="/volumes/a", method="DELETE", status=204) == []
    assert answer(b'{"Type":"volume"}\n{"Type":"image"}\n', path="/events") == []


@pytest.mark.parametrize(
    ("value", "options", "complaint"),
    [
        ({**VOLUME, "Name": 1}, {}, "Name: 1 is not of type 'string'"),
        ({**VOLUME, "Name": None}, {}, "Name: None is not of type 'string'"),
        ({**VOLUME, "Size": 1}, {}, "unknown field Size"),
        ({k: v for k, v in VOLUME.items() if k != "Driver"}, {}, "'Driver' is a required property"),
        ({**VOLUME, "Labels": {"a": 1}}, {}, "Labels.a: 1 is not of type 'string'"),
        (VOLUME, {"status": 201}, "not a status of the definition"),
        (VOLUME, {"media": "text/plain"}, "JSON of type 'text/plain'"),
        (b"{", {}, "not JSON"),
        (b"", {}, "an empty body instead of JSON"),
        ({"error": "x"}, {"status": 404}, "an error that is not a message"),
        (b"no", {"status": 404}, "an error that is not JSON"),
        ({"message": "x"}, {"status": 404, "media": "text/plain"}, "an error of type 'text/plain'"),
        ({}, {"path": "/no/such/endpoint"}, "served, but not in API"),
        (b"x", {"method": "DELETE", "status": 204}, "a body of 1 bytes"),
    ],
)
def test_wrong_answers_are_named(value: Any, options: dict[str, Any], complaint: str) -> None:
    found = answer(value, **options)
    assert len(found) == 1
    assert complaint in found[0]


def test_every_version_is_there() -> None:
    paths = {minor: len(definition((1, minor)).operations) for minor in range(40, 51)}
    assert paths[40] == 106
    assert paths[50] == 107


def test_objects_of_a_stream() -> None:
    assert list(objects(b'{"a":1}\n {"b":[2]}\r\n')) == [{"a": 1}, {"b": [2]}]
