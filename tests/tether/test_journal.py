"""Journals: read whole, hopped over, torn and continued."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.journal import (
    BODY,
    MAGIC,
    MAX_BODY,
    MAX_RECORD,
    OUTPUT_PIECE,
    STDERR,
    STDOUT,
    JournalReader,
    JournalWriter,
    Kind,
    Record,
    entries,
    verify,
)
from tether.wire import HEADER_SIZE, encode

BOOT = bytes(range(16))

contents = st.lists(
    st.tuples(
        st.sampled_from([Kind.OUTPUT, Kind.STARTED, Kind.EXITED, Kind.HEALTH]),
        st.integers(0, 2),
        st.integers(0, 2**63),
        # A workload may print anything, records included.
        st.one_of(st.binary(max_size=200), st.binary(max_size=20).map(lambda b: encode(3, b, magic=MAGIC))),
    ),
    max_size=8,
)


def write(written: list[tuple[Kind, int, int, bytes]]) -> tuple[list[bytes], list[Record]]:
    writer = JournalWriter()
    pieces = [writer.boot(BOOT)]
    records = []
    for n, (kind, stream, at, body) in enumerate(written):
        pieces.append(writer.record(kind, body, stream=stream, at=at))
        records.append(Record(kind, stream, n + 1, at, body))
    return pieces, records


def hopped(file: bytes, offset: int = 0) -> list[Record]:
    return [
        Record(e.kind, e.stream, e.sequence, e.time, file[e.start : e.end]) for e in entries(file, offset)
    ]


@given(contents, st.integers(1, 500))
def test_what_is_written_is_read_however_it_is_cut(
    written: list[tuple[Kind, int, int, bytes]], step: int
) -> None:
    pieces, records = write(written)
    file = b"".join(pieces)
    reader = JournalReader()
    got = [record for n in range(0, len(file), step) for record in reader.feed(file[n : n + step])]
    assert got[0][:3] == (Kind.BOOT, 0, 0)
    assert got[0].body == BOOT
    assert got[1:] == records
    assert (reader.lost, reader.skipped) == (0, 0)


@given(contents)
def test_hopping_finds_the_same_records(written: list[tuple[Kind, int, int, bytes]]) -> None:
    pieces, records = write(written)
    file = b"".join(pieces)
    assert hopped(file)[1:] == records
    reader = JournalReader()
    assert hopped(file) == reader.feed(file)


@given(contents, st.data())
def test_hopping_from_any_record_on_and_before_an_incomplete_one(
    written: list[tuple[Kind, int, int, bytes]], data: st.DataObject
) -> None:
    pieces, records = write(written)
    first = data.draw(st.integers(0, len(records)))
    offset = sum(map(len, pieces[: first + 1]))
    file = b"".join(pieces)
    assert hopped(file, offset) == records[first:]
    if records:
        cut = data.draw(st.integers(1, len(pieces[-1])))
        assert hopped(file[:-cut])[1:] == records[:-1]


@settings(deadline=None)
@given(contents.filter(len), contents, st.data())
def test_a_boot_cut_short_hides_nothing_of_the_next(
    first: list[tuple[Kind, int, int, bytes]], second: list[tuple[Kind, int, int, bytes]], data: st.DataObject
) -> None:
    old, old_records = write(first)
    new, new_records = write(second)
    cut = data.draw(st.integers(1, len(old[-1]) - 1))
    file = b"".join(old)[:-cut] + b"".join(new)
    got = hopped(file)
    reader = JournalReader()
    assert got == reader.feed(file)
    assert got[1 : len(old_records)] == old_records[:-1]
    assert got[len(got) - len(new_records) :] == new_records
    assert got[-len(new_records) - 1].kind == Kind.BOOT
    assert reader.skipped > 0


def test_even_the_longest_record_cut_short_hides_nothing_of_the_next_boot() -> None:
    writer = JournalWriter()
    longest = writer.record(Kind.OUTPUT, b"\xff" * MAX_RECORD, stream=STDOUT)
    for left in (1, HEADER_SIZE, HEADER_SIZE + 1, len(longest) - 1):
        file = longest[:left] + JournalWriter().boot(BOOT)
        assert [record.kind for record in hopped(file)] == [Kind.BOOT]
        assert [record.kind for record in JournalReader().feed(file)] == [Kind.BOOT]


def test_damage_in_the_middle_costs_one_record_and_is_counted() -> None:
    writer = JournalWriter()
    pieces = [writer.boot(BOOT)] + [
        writer.record(Kind.OUTPUT, b"line %d" % n, stream=STDOUT, at=n) for n in range(5)
    ]
    damaged = bytearray(pieces[3])
    damaged[-1] ^= 0xFF
    file = b"".join([*pieces[:3], bytes(damaged), *pieces[4:]])
    reader = JournalReader()
    got = reader.feed(file)
    assert [record.body for record in got[1:]] == [b"line 0", b"line 1", b"line 3", b"line 4"]
    assert (reader.lost, reader.skipped) == (1, len(damaged))


def test_hopping_leaves_looking_at_bodies_to_the_reader() -> None:
    writer = JournalWriter()
    damaged = bytearray(writer.record(Kind.EXITED, b"state"))
    damaged[-1] ^= 0xFF
    file = bytes(damaged) + writer.record(Kind.EXITED, b"other")
    assert [verify(file, entry) for entry in entries(file)] == [False, True]


def test_a_missing_piece_of_the_file_is_stepped_over_by_both() -> None:
    writer = JournalWriter()
    pieces = [writer.boot(BOOT)] + [
        writer.record(Kind.OUTPUT, b"%d" % n * (3000 + n), stream=STDERR, at=n) for n in range(6)
    ]
    whole = b"".join(pieces)
    start = len(pieces[0]) + len(pieces[1]) + 100  # from inside record 1 to inside record 3
    file = whole[:start] + whole[start + 2 * len(pieces[2]) :]
    reader = JournalReader()
    got = reader.feed(file)
    assert [record.time for record in got[1:]] == [0, 4, 5]
    assert reader.lost == 3
    assert hopped(file) == got


def test_sequences_continue_in_the_next_file_and_a_torn_end_stays_behind() -> None:
    writer = JournalWriter()
    reader = JournalReader()
    first = writer.boot(BOOT) + writer.record(Kind.OUTPUT, b"a", stream=STDOUT)
    torn = writer.record(Kind.OUTPUT, b"torn", stream=STDOUT)
    reader.feed(first + torn[:-1])
    reader.next_file()
    assert [r.body for r in reader.feed(writer.record(Kind.OUTPUT, b"b", stream=STDOUT))] == [b"b"]
    assert (reader.lost, reader.skipped) == (1, len(torn) - 1)


def test_a_boot_begins_a_new_count_without_loss() -> None:
    writer = JournalWriter()
    reader = JournalReader()
    for _ in range(2):
        reader.feed(writer.boot(BOOT) + writer.record(Kind.STARTED, b""))
    assert (reader.lost, reader.skipped) == (0, 0)


def test_a_frame_without_a_time_is_no_record() -> None:
    bad = encode(Kind.EXITED, b"1234", magic=MAGIC)
    good = JournalWriter().record(Kind.EXITED, b"x", at=5)
    reader = JournalReader()
    assert [record.body for record in reader.feed(bad + good)] == [b"x"]
    assert [record.body for record in hopped(bad + good)] == [b"x"]
    assert reader.skipped == len(bad)


def test_a_full_output_record_is_whole_writes_and_a_longer_one_is_refused() -> None:
    writer = JournalWriter()
    assert len(writer.record(Kind.OUTPUT, bytes(OUTPUT_PIECE), stream=STDOUT)) == MAX_BODY
    assert MAX_BODY % (32 * 1024) == 0
    writer.record(Kind.OUTPUT, bytes(MAX_RECORD))
    with pytest.raises(ValueError, match=str(MAX_BODY)):
        writer.record(Kind.OUTPUT, bytes(MAX_RECORD + 1))
    with pytest.raises(ValueError, match="16"):
        writer.boot(b"short")


@given(st.binary(min_size=1, max_size=300), st.integers(0, 100))
def test_output_made_a_record_in_place_is_the_same_record(data: bytes, spare: int) -> None:
    writer = JournalWriter()
    writer.record(Kind.STARTED, b"")
    buffer = bytearray(BODY) + data + bytes(spare)
    writer.output_in_place(buffer, len(data), STDERR)
    (record,) = JournalReader().feed(bytes(buffer[: BODY + len(data)]))
    assert (record.kind, record.stream, record.sequence, record.body) == (Kind.OUTPUT, STDERR, 1, data)
    assert abs(record.time - time.time_ns()) < 10**10


def test_hopping_over_a_large_file_reads_its_headers_only(tmp_path: Path) -> None:
    writer = JournalWriter()
    path = tmp_path / "journal"
    with path.open("wb") as file:
        file.write(writer.boot(BOOT))
        for _ in range(1000):
            file.write(writer.record(Kind.OUTPUT, bytes(OUTPUT_PIECE), stream=STDOUT))
        file.write(writer.record(Kind.EXITED, b"state", at=7))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        began = time.process_time()
        last = [entry for entry in entries(mapped) if entry.kind == Kind.EXITED]
        assert time.process_time() - began < 0.5
        assert [mapped[entry.start : entry.end] for entry in last] == [b"state"]


def test_a_hostile_file_does_not_cost_a_sum_of_every_byte_a_thousand_times() -> None:
    claim = encode(Kind.OUTPUT, bytes(MAX_BODY), magic=MAGIC, most=MAX_BODY)[:HEADER_SIZE]
    file = claim * 150_000  # 3 MB
    began = time.process_time()
    assert list(entries(file)) == []
    assert time.process_time() - began < 2.0
