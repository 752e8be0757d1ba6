"""The ring against its obvious model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.ring import Ring


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 30), st.integers(1, 50))
def test_a_ring_holds_the_newest_bytes_at_their_offsets(
    pieces: list[bytes], capacity: int, limit: int
) -> None:
    ring = Ring(capacity)
    everything = b""
    for piece in pieces:
        ring.write(piece)
        everything += piece
        assert (ring.start, ring.end) == (max(0, len(everything) - capacity), len(everything))
        for offset in range(ring.start, ring.end + 1):
            assert ring.read(offset, limit) == everything[offset : offset + limit]


def test_reading_what_is_not_there_raises() -> None:
    ring = Ring(4)
    ring.write(b"abcdef")
    for offset in (1, 7):
        with pytest.raises(ValueError, match=r"outside 2\.\.6"):
            ring.read(offset, 1)


def test_dropped_and_passed_by_bytes_are_counted_not_kept() -> None:
    ring = Ring(8)
    ring.write(b"abc")
    ring.drop()
    assert (ring.start, ring.end) == (3, 3)
    ring.pass_by(2)
    assert (ring.start, ring.end) == (5, 5)
    ring.write(b"xyz")
    assert ring.read(5, 10) == b"xyz"


def test_a_short_stream_costs_little_memory() -> None:
    ring = Ring(1 << 20)
    ring.write(b"one line\n")
    assert len(ring._bytes) <= 4096
