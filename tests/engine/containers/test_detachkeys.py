"""Detach keys: notation, and the scanner byte by byte."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.detachkeys import DEFAULT, DetachScanner, parse_detach_keys
from engine.http import BadRequest


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", DEFAULT),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("CTRL-A,b,ctrl-z", b"\x01b\x1a"),
    ],
)
def test_notation(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", ",", "ä", "a,,b", ",".join("a" * 40)])
def test_other_notations_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^Invalid detach keys \("):
        parse_detach_keys(text)


@given(st.text(max_size=30))
def test_no_notation_is_our_fault(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert parse_detach_keys(text)


@given(
    keys=st.lists(st.sampled_from(b"abc"), min_size=1, max_size=4).map(bytes),
    pieces=st.lists(st.lists(st.sampled_from(b"abcd"), max_size=6).map(bytes), max_size=12),
)
def test_everything_before_the_sequence_passes_once_and_in_order(keys: bytes, pieces: list[bytes]) -> None:
    scanner = DetachScanner(keys)
    passed, detached = b"", False
    for piece in pieces:
        data, detached = scanner.feed(piece)
        passed += data
        if detached:
            break
    if not detached:
        passed += scanner.finish()
    whole = b"".join(pieces)
    place = whole.find(keys)
    assert detached == (place >= 0)
    assert passed == (whole[:place] if detached else whole)


def test_started_sequence_is_held_back_until_it_is_something_else() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"x\x10") == (b"x", False)
    assert scanner.feed(b"\x10") == (b"\x10", False)
    assert scanner.feed(b"y") == (b"\x10y", False)
    assert scanner.feed(b"\x10\x11z") == (b"", True)
