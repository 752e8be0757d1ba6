"""Docker's spellings of a moment."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.http import BadRequest
from engine.timestamps import duration_ns, format_ns, parse_ns

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("1136073600", 1136073600 * SECOND),
        ("1136073600.000000001", 1136073600 * SECOND + 1),
        ("1136073600.5", 1136073600 * SECOND + SECOND // 2),
        ("2006-01-02T15:04:05Z", 1136214245 * SECOND),
        ("2006-01-02T15:04:05.000000001Z", 1136214245 * SECOND + 1),
        ("2006-01-02T15:04:05+07:00", (1136214245 - 7 * 3600) * SECOND),
        ("2006-01-02T15:04", 1136214240 * SECOND),
        ("2006-01-02", 1136160000 * SECOND),
        ("10m", NOW - 600 * SECOND),
        ("1h30m", NOW - 5400 * SECOND),
        ("-10s", NOW + 10 * SECOND),
        ("0", 0),
        ("-5", 0),
    ],
)
def test_spellings(text: str, expected: int) -> None:
    assert parse_ns(text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2006-13-02",
        "2006-01-02T25:00:00Z",
        "10 m",
        "1.2.3",
        "9" * 18,
        "2006-01-02T15:04:05+99:00",
    ],
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^invalid value for since: "):
        parse_ns(text, NOW, what="since")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5s", SECOND * 3 // 2),
        ("100ms", SECOND // 10),
        ("0", 0),
        ("-1m", -60 * SECOND),
        ("1µs", 1000),
        ("", None),
        ("5", None),
        ("h", None),
        ("-", None),
    ],
)
def test_durations(text: str, expected: int | None) -> None:
    assert duration_ns(text) == expected


def test_format() -> None:
    assert format_ns(0) == "0001-01-01T00:00:00Z"
    assert format_ns(1136214245 * SECOND) == "2006-01-02T15:04:05Z"
    assert format_ns(1136214245 * SECOND + 1_000) == "2006-01-02T15:04:05.000001Z"


@given(st.text(max_size=60) | st.from_regex(r"[0-9.:TZ+hms-]{1,40}", fullmatch=True))
def test_nothing_is_our_fault(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert 0 <= parse_ns(text, NOW) < 1 << 63


@given(st.integers(min_value=1, max_value=(1 << 63) - 1))
def test_what_is_formatted_can_be_read_back(ns: int) -> None:
    assert parse_ns(format_ns(ns), NOW) == ns
