"""The filters parameter: shapes, refusals, matching; no input is our fault."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.filters import Filters
from engine.http import BadRequest

NAMES = frozenset(("name", "label", "label!", "id", "dangling"))


def make(**values: Any) -> Filters:
    return Filters.parse(json.dumps(values), NAMES)


@pytest.mark.parametrize("text", ["", "null", "{}", '{"name":{}}', '{"name":[]}'])
def test_no_filter_matches_everything(text: str) -> None:
    filters = Filters.parse(text, NAMES)
    assert not filters
    assert filters.exact("name", "x")
    assert filters.fuzzy("name", ["x"])
    assert filters.labels({})
    assert filters.boolean("dangling") is None


def test_both_shapes_are_read() -> None:
    assert make(name=["a", "b"])["name"] == make(name={"a": True, "b": True})["name"] == ("a", "b")
    assert make(name={"a": True, "b": False})["name"] == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid filter"),
        ("[]", "invalid filter"),
        ('{"name":"x"}', "invalid filter"),
        ('{"name":[1]}', "invalid filter 'name'"),
        ('{"colour":["red"]}', "invalid filter 'colour'"),
        ("[" * 10_000, "invalid filter"),
        ('{"name":["' + "x" * 70_000 + '"]}', "invalid filter: too long"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Filters.parse(text, NAMES)
    assert caught.value.message == message


def test_labels() -> None:
    labels = {"a": "1", "b": ""}
    assert make(label=["a"]).labels(labels)
    assert make(label=["a=1", "b"]).labels(labels)
    assert not make(label=["a=2"]).labels(labels)
    assert not make(label=["a", "c"]).labels(labels)
    assert make(**{"label!": ["a=1"]}).excluded_by_labels(labels)
    assert not make(**{"label!": ["a=2"]}).excluded_by_labels(labels)


def test_fuzzy_is_a_regular_expression_or_a_part() -> None:
    assert make(name=["^we"]).fuzzy("name", ["web"])
    assert make(name=["eb"]).fuzzy("name", ["web"])
    assert not make(name=["^eb"]).fuzzy("name", ["web"])
    assert not make(name=["("]).fuzzy("name", ["web"])
    assert make(name=["("]).fuzzy("name", ["we(b"])


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a*)*b", "(a|a+)+$", "((a+)+)+$"])
def test_patterns_that_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(BadRequest):
        make(name=[pattern]).fuzzy("name", ["a" * 60 + "c"])


@pytest.mark.parametrize(
    ("values", "expected"), [(["1"], True), (["true", "1"], True), (["0"], False), (["False"], False)]
)
def test_booleans(values: list[str], expected: bool) -> None:
    assert make(dangling=values).boolean("dangling") is expected


@pytest.mark.parametrize("values", [["maybe"], ["1", "0"]])
def test_other_booleans_are_refused(values: list[str]) -> None:
    with pytest.raises(BadRequest, match=r"^invalid filter 'dangling="):
        make(dangling=values).boolean("dangling")


@given(st.text(max_size=200))
def test_any_text_parses_or_is_a_bad_request(text: str) -> None:
    with contextlib.suppress(BadRequest):
        Filters.parse(text, NAMES)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(NAMES)), inner),
    )
)
def test_any_json_parses_or_is_a_bad_request(value: Any) -> None:
    with contextlib.suppress(BadRequest):
        filters = Filters.parse(json.dumps(value), NAMES)
        filters.fuzzy("name", ["web"])
        filters.labels({"a": "b"})
        filters.boolean("dangling")
