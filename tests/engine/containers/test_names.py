"""Container names."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.names import _ADJECTIVES, _SURNAMES, checked, made_up
from engine.http import BadRequest


@pytest.mark.parametrize(
    ("name", "bare"), [("web", "web"), ("/web", "web"), ("a_.-9", "a_.-9"), ("9x", "9x")]
)
def test_allowed(name: str, bare: str) -> None:
    assert checked(name) == bare


@pytest.mark.parametrize("name", ["", "/", "x", "-x", "_x", "a b", "a/b", "ä1", "a\n", "a" * 256])
def test_refused_with_dockers_words(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checked(name)
    assert (
        caught.value.message == f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_made_up_ones_are_allowed_and_many() -> None:
    assert len(set(_ADJECTIVES)) == len(_ADJECTIVES)
    assert len(set(_SURNAMES)) == len(_SURNAMES)
    assert len(_ADJECTIVES) * len(_SURNAMES) > 9_000
    for attempt in range(6):
        assert checked(made_up(attempt))[-1].isdigit() == (attempt >= 2)


@given(st.text(max_size=20))
def test_nothing_is_our_fault(name: str) -> None:
    with contextlib.suppress(BadRequest):
        checked(name)
