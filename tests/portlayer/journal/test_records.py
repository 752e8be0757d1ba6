"""The scanner against the writer, whole and in pieces, with damage."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from portlayer.journal.records import Entry, Kind, Scanner
from tether.journal import MAX_RECORD, JournalWriter

outputs = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=12)


def written(pieces: list[tuple[int, bytes]]) -> bytes:
    writer = JournalWriter()
    return b"".join(writer.record(Kind.OUTPUT, data, stream=s, at=7) for s, data in pieces)


def content(entries: list[Entry]) -> list[tuple[int, bytes]]:
    return [(entry.stream, entry.data) for entry in entries]


@given(outputs, st.lists(st.integers(0, 5000), max_size=8))
def test_however_it_is_cut_the_records_are_the_same(pieces: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = written(pieces)
    scanner = Scanner()
    entries: list[Entry] = []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        entries += scanner.feed(data[start:end])
    assert content(entries) == pieces
    assert [entry.sequence for entry in entries] == list(range(len(pieces)))
    assert scanner.offset == len(data)


@given(outputs, outputs, st.integers(1, 400))
def test_a_torn_record_costs_itself_only(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], cut: int
) -> None:
    """Killed in the middle of a record; the next boot appends a PAD, BOOT and more."""
    torn = JournalWriter().record(Kind.OUTPUT, b"torn" * 100, stream=1)[:cut]
    writer = JournalWriter()
    data = written(before) + torn + writer.boot(bytes(16))
    data += b"".join(writer.record(Kind.OUTPUT, piece, stream=s) for s, piece in after)
    entries = Scanner().feed(data)
    boots = [index for index, entry in enumerate(entries) if entry.kind == Kind.BOOT]
    assert len(boots) == 1
    assert content(entries[: boots[0]]) == before
    assert content(entries[boots[0] + 1 :]) == after


@given(st.binary(max_size=2000))
def test_noise_is_no_record(noise: bytes) -> None:
    entries = Scanner().feed(noise + written([(1, b"good")]))
    assert content(entries)[-1] == (1, b"good")


def test_a_journal_inside_the_output_stays_output() -> None:
    inner = written([(1, b"fake"), (2, b"fake")])
    assert content(Scanner().feed(written([(1, inner), (2, b"x")]))) == [(1, inner), (2, b"x")]


def test_the_largest_record_is_read() -> None:
    data = bytes(MAX_RECORD)
    assert content(Scanner().feed(written([(1, data)]))) == [(1, data)]


def test_a_hostile_file_of_headers_costs_bounded_time() -> None:
    """Each header claims a full body whose checksum is wrong: 50,000 claims in a megabyte."""
    header = JournalWriter().record(Kind.OUTPUT, bytes(MAX_RECORD), stream=1)[:20]
    scanner = Scanner()
    scanner.feed(header * 52_000)
    assert scanner.offset > 900_000
