"""Signal names and numbers."""

from __future__ import annotations

import contextlib
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.signals import SIGNALS, parse_signal
from engine.http import BadRequest


def test_numbers_are_the_kernels() -> None:
    for known in signal.Signals:
        name = known.name.removeprefix("SIG")
        if not name.startswith("RT"):
            assert SIGNALS[name] == known.value, name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("SIGTERM", 15),
        ("sigint", 2),
        ("9", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
    ],
)
def test_spellings(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "99999", "NOPE", "RTMIN+40", "-9", "9.0", "SIGSIGTERM"])
def test_others_are_refused_with_dockers_words(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^invalid signal: "):
        parse_signal(text)


@given(st.text(max_size=20))
def test_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert 1 <= parse_signal(text) <= 64
