"""Frames: whatever the cuts and the noise, good frames come out whole and in order."""

from __future__ import annotations

import itertools
import os
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.wire import HEADER_SIZE, MAGIC, MAX_BODY, MAX_RESCANS, PADDING, Decoder, Frame, Type, encode

frames = st.builds(
    Frame,
    st.sampled_from([int(kind) for kind in Type]),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    # Bodies that look like frames are the hard ones.
    st.one_of(
        st.binary(max_size=300),
        st.just(MAGIC * 20),
        st.binary(max_size=40).map(lambda body: encode(Type.DATA, body)),
    ),
)


def wire(frame: Frame) -> bytes:
    return encode(frame.type, frame.body, stream=frame.stream, flags=frame.flags)


def fed(decoder: Decoder, pieces: list[bytes]) -> list[Frame]:
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(frames, max_size=8))
def test_a_stream_decodes_the_same_whole_and_byte_by_byte(sent: list[Frame]) -> None:
    stream = b"".join(map(wire, sent))
    whole, single = Decoder(), Decoder()
    assert whole.feed(stream) == sent
    assert fed(single, [stream[n : n + 1] for n in range(len(stream))]) == sent
    assert (whole.noise, single.noise, whole.pending, single.pending) == (0, 0, 0, 0)


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 1 << 20), max_size=6))
def test_cuts_do_not_matter(sent: list[Frame], places: list[int]) -> None:
    assert fed(Decoder(), cut(b"".join(map(wire, sent)), places)) == sent


@given(st.lists(st.tuples(frames, st.binary(max_size=60)), max_size=6), st.lists(st.integers(0, 1 << 20)))
def test_noise_between_frames_costs_itself_only(sent: list[tuple[Frame, bytes]], places: list[int]) -> None:
    decoder = Decoder()
    stream = b"".join(noise + wire(frame) for frame, noise in sent)
    assert fed(decoder, cut(stream, places)) == [frame for frame, _ in sent]
    assert decoder.noise == sum(len(noise) for _, noise in sent)


@given(st.lists(frames, min_size=1, max_size=5), st.data())
def test_a_frame_cut_short_costs_itself_only(sent: list[Frame], data: st.DataObject) -> None:
    torn = data.draw(st.integers(0, len(sent) - 1))
    left = data.draw(st.integers(0, len(wire(sent[torn])) - 1))
    stream = b"".join(wire(frame)[: left if n == torn else None] for n, frame in enumerate(sent))
    got = Decoder().feed(stream + PADDING)
    expected = [frame for n, frame in enumerate(sent) if n != torn]
    # Of the torn frame nothing is believed but what is whole inside its body.
    assert [frame for frame in got if frame in expected][-len(expected) or len(got) :] == expected


@given(st.lists(frames, min_size=1, max_size=5), st.data())
def test_a_flipped_bit_is_never_believed(sent: list[Frame], data: st.DataObject) -> None:
    stream = bytearray(b"".join(map(wire, sent)))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << bit % 8
    edge, hit = 0, 0
    for hit, frame in enumerate(sent):  # noqa: B007
        edge += len(wire(frame))
        if bit // 8 < edge:
            break
    got = Decoder().feed(bytes(stream) + PADDING)
    assert got[:hit] == sent[:hit]
    after = sent[hit + 1 :]
    assert after == [] or got[-len(after) :] == after
    if not sent[hit].body.count(MAGIC):
        assert got == sent[:hit] + after


def test_no_header_passes_for_another_as_the_body_of_a_cut_frame() -> None:
    """Data followed by its own CRC-32 has the same CRC-32 whatever it is: a header must not be that."""
    bare = [encode(Type.PING, stream=number) for number in range(1000)]
    assert len({zlib.crc32(header) for header in bare}) == len(bare)
    cut = encode(Type.DATA, bare[0])[:HEADER_SIZE]
    assert Decoder().feed(cut + bare[1] + PADDING) == [Frame(Type.PING, 0, 1, b"")]


@given(st.binary(max_size=400))
def test_padding_ends_whatever_the_decoder_is_in_the_middle_of(start: bytes) -> None:
    decoder = Decoder()
    decoder.feed(start + PADDING)
    reset = Frame(Type.RESET, 0, 0, bytes(16))
    assert decoder.feed(wire(reset)) == [reset]


@pytest.mark.parametrize("left", [1, 19, 20, 21, 32_000, MAX_BODY + HEADER_SIZE - 1])
def test_padding_ends_the_longest_frame_cut_anywhere(left: int) -> None:
    longest = encode(Type.DATA, b"\xff" * MAX_BODY, stream=1)
    reset = Frame(Type.RESET, 0, 0, bytes(16))
    assert Decoder().feed(longest[:left] + PADDING + wire(reset)) == [reset]


def test_a_length_beyond_the_cap_is_noise_even_with_good_sums() -> None:
    head = struct.pack("<2sBBIII", MAGIC, Type.DATA, 0, 1, MAX_BODY + 1, 0)
    giant = head + struct.pack("<I", zlib.crc32(head + MAGIC))
    good = Frame(Type.PING, 0, 0, b"12345678")
    decoder = Decoder()
    assert decoder.feed(giant + wire(good)) == [good]
    assert decoder.noise == len(giant)


def test_what_is_held_is_one_frame_at_most() -> None:
    decoder = Decoder()
    frame = encode(Type.DATA, os.urandom(MAX_BODY))
    for _ in range(20):
        decoder.feed(frame[:20_000])
        assert decoder.pending <= MAX_BODY + HEADER_SIZE


def test_a_body_beyond_the_cap_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="32768"):
        encode(Type.DATA, bytes(MAX_BODY + 1))


def test_another_magic_is_noise() -> None:
    decoder = Decoder()
    assert decoder.feed(encode(Type.DATA, b"x", magic=b"\xa7\x4a")) == []
    assert decoder.feed(encode(Type.DATA, b"y")) == [Frame(Type.DATA, 0, 0, b"y")]


def test_false_claims_packed_together_do_not_cost_a_sum_of_every_byte_a_thousand_times() -> None:
    head = struct.pack("<2sBBIII", MAGIC, Type.DATA, 0, 1, MAX_BODY, 1)
    claim = head + struct.pack("<I", zlib.crc32(head + MAGIC))
    flood = claim * 200_000  # 4 MB; looking into each would sum 6.5 GB
    decoder = Decoder()
    began = time.process_time()
    assert decoder.feed(flood) == []
    assert time.process_time() - began < 1.0
    assert decoder.noise + decoder.pending == len(flood)
    assert len(flood) > MAX_RESCANS * len(claim)


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=2000, max_size=40_000))
def test_large_bodies_survive_small_reads(body: bytes) -> None:
    stream = encode(Type.DATA, body[:MAX_BODY], stream=9)
    pieces = [stream[n : n + 1000] for n in range(0, len(stream), 1000)]
    assert fed(Decoder(), pieces) == [Frame(Type.DATA, 0, 9, body[:MAX_BODY])]
