"""Two sessions talking to each other, and one talking to a peer who breaks the rules."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.session import (
    MAX_MESSAGE,
    MAX_STREAMS,
    WINDOW,
    CancelReceived,
    DataReceived,
    ErrorReceived,
    Event,
    LocalProtocolError,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    Role,
    Session,
    SessionFailed,
    SessionStarted,
    State,
)
from tether.wire import END, HEADER_SIZE, MAX_BODY, MORE, PADDING, Code, Decoder, Type, encode

NONCE = b"0123456789abcdef"


def drain(session: Session) -> bytes:
    pieces = []
    while piece := session.pull():
        pieces.append(piece)
    return b"".join(pieces)


def exchange(host: Session, guest: Session) -> tuple[list[Event], list[Event]]:
    """Deliver until both are silent: (what the host saw, what the guest saw)."""
    host_saw: list[Event] = []
    guest_saw: list[Event] = []
    while True:
        down, up = drain(host), drain(guest)
        if not down and not up:
            return host_saw, guest_saw
        guest_saw += guest.receive(down)
        host_saw += host.receive(up)


def pair() -> tuple[Session, Session]:
    host, guest = Session(Role.HOST), Session(Role.GUEST)
    host.reset(NONCE)
    assert exchange(host, guest) == ([SessionStarted()], [SessionStarted()])
    return host, guest


def ask(host: Session, guest: Session, method: str = "M") -> int:
    stream = host.open(method, b"")
    exchange(host, guest)
    return stream


def sent_types(data: bytes) -> list[tuple[int, int]]:
    return [(frame.type, frame.stream) for frame in Decoder().feed(data)]


# ---------------------------------------------------------------- the good course


def test_a_unary_call() -> None:
    host, guest = pair()
    stream = host.open("Hello", b"who")
    assert exchange(host, guest) == ([], [RequestReceived(stream, "Hello", b"who")])
    guest.respond(stream, b"me", end=True)
    assert exchange(host, guest) == ([ResponseReceived(stream, b"me", True)], [])
    assert not host.is_open(stream)
    assert not guest.is_open(stream)


def test_a_streaming_call_both_ways() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.respond(stream, b"first", end=False)
    guest.send(stream, b"out")
    host.send(stream, b"in", end=True)
    assert exchange(host, guest) == (
        [ResponseReceived(stream, b"first", False), DataReceived(stream, b"out", False)],
        [DataReceived(stream, b"in", True)],
    )
    guest.send(stream, b"last", end=True)
    assert exchange(host, guest)[0] == [DataReceived(stream, b"last", True)]
    assert not host.is_open(stream)
    assert not guest.is_open(stream)


def test_an_end_without_a_body_needs_no_credit() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.send(stream, bytes(WINDOW))
    guest.send(stream, b"", end=True)
    received = [event for event in exchange(host, guest)[0] if isinstance(event, DataReceived)]
    assert sum(len(event.body) for event in received) == WINDOW
    assert received[-1].end


def test_an_error_ends_the_call_and_drops_its_data() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.send(stream, b"never seen")
    guest.fail(stream, Code.NOT_FOUND, "no such thing")
    assert exchange(host, guest)[0] == [ErrorReceived(stream, Code.NOT_FOUND, "no such thing")]
    assert not host.is_open(stream)


def test_what_crosses_a_cancellation_is_ignored_on_both_sides() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.respond(stream, b"x" * 100_000, end=False)
    guest.send(stream, bytes(WINDOW))
    host.cancel(stream)
    host_saw, guest_saw = exchange(host, guest)
    assert (host_saw, guest_saw) == ([], [CancelReceived(stream)])
    assert (host.state, guest.state) == (State.OPEN, State.OPEN)
    # and the other way round: the host's data crosses the guest's end
    stream = ask(host, guest)
    guest.respond(stream, b"", end=True)
    host.send(stream, b"late", end=True)
    assert exchange(host, guest) == ([ResponseReceived(stream, b"", True)], [])
    assert (host.state, guest.state) == (State.OPEN, State.OPEN)


def test_long_messages_span_frames_both_ways() -> None:
    host, guest = pair()
    body = bytes(range(256)) * 4000
    stream = host.open("Big", body)
    assert exchange(host, guest)[1] == [RequestReceived(stream, "Big", body)]
    guest.respond(stream, body, end=True)
    assert exchange(host, guest)[0] == [ResponseReceived(stream, body, True)]
    with pytest.raises(LocalProtocolError, match="the most is"):
        host.open("Big", bytes(MAX_MESSAGE))


def test_a_ping_is_echoed() -> None:
    host, guest = pair()
    host.ping(b"12345678")
    assert exchange(host, guest)[0] == [PongReceived(b"12345678")]


def test_up_to_a_frames_worth_of_data_arrives_as_one_piece() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    for size in (1, 1000, MAX_BODY):
        host.send(stream, b"x" * size)
        assert exchange(host, guest)[1] == [DataReceived(stream, b"x" * size, False)]


# ---------------------------------------------------------------- reset


def test_a_reset_forgets_everything_older_on_both_sides() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.send(stream, b"old news")
    stale = drain(guest)
    again = Session(Role.HOST)
    again.reset(b"another nonce...")
    assert guest.receive(drain(again)) == [SessionStarted()]
    assert not guest.is_open(stream)
    assert again.receive(stale + drain(guest)) == [SessionStarted()]
    assert again.open("M", b"") == 1
    assert exchange(again, guest)[1] == [RequestReceived(1, "M", b"")]


def test_repeated_resets_are_one_session() -> None:
    host, guest = Session(Role.HOST), Session(Role.GUEST)
    for _ in range(3):
        host.reset(NONCE)
    assert guest.receive(drain(host)) == [SessionStarted()] * 3
    answers = drain(guest)
    assert host.receive(answers) == [SessionStarted()]
    stream = host.open("M", b"")
    host.receive(PADDING + encode(Type.RESET, NONCE))
    assert host.is_open(stream)
    assert exchange(host, guest)[1] == [RequestReceived(stream, "M", b"")]


def test_repetitions_are_padded_now_and_then_only() -> None:
    """A serial line may take seconds for one padding; each second's more would never come to an end."""
    host, guest = Session(Role.HOST), Session(Role.GUEST)
    padded = []
    for _ in range(40):
        host.reset(NONCE)
        asked = drain(host)
        guest.receive(asked)
        padded.append((PADDING in asked, PADDING in drain(guest)))
    assert [number for number, both in enumerate(padded) if both == (True, True)] == [0, 16, 32]
    assert padded.count((False, False)) == 37


@settings(deadline=None)
@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_a_new_host_gets_through_wherever_the_last_ones_bytes_were_cut(down: int, up: int) -> None:
    host, guest = pair()
    stream = ask(host, guest)
    host.send(stream, b"\xa7" * MAX_BODY)
    guest.send(stream, b"\x4d" * MAX_BODY)
    guest.receive(drain(host)[:down])
    half_out = drain(guest)[:up]
    new = Session(Role.HOST)
    new.reset(bytes(reversed(NONCE)))
    guest.receive(drain(new))
    assert new.receive(half_out + drain(guest)) == [SessionStarted()]


def test_a_guest_without_a_session_hears_nothing_but_a_reset() -> None:
    guest = Session(Role.GUEST)
    assert guest.receive(encode(Type.REQUEST, b"\1M", stream=1) + encode(Type.PING, b"12345678")) == []
    assert drain(guest) == b""


def test_a_host_is_not_fooled_by_a_guest_who_answers_before_it_was_asked() -> None:
    host = Session(Role.HOST)
    assert host.receive(encode(Type.RESET, b"") + encode(Type.RESET, NONCE)) == []
    assert host.state is State.WAITING
    host.reset(b"my own nonce ...")
    assert host.receive(encode(Type.RESET, NONCE)) == []
    assert host.state is State.WAITING


# ---------------------------------------------------------------- order and credit


def test_control_frames_overtake_queued_data() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    other = ask(host, guest)
    guest.send(stream, bytes(100_000))
    assert sent_types(guest.pull()) == [(Type.DATA, stream)]
    guest.respond(other, b"answer", end=True)
    assert sent_types(guest.pull())[0] == (Type.RESPONSE, other)


def test_streams_take_turns() -> None:
    host, guest = pair()
    streams = [ask(host, guest) for _ in range(3)]
    for stream in streams:
        guest.send(stream, bytes(90_000))
    order = [stream for _, stream in sent_types(drain(guest))]
    assert order[:6] == streams * 2


def test_a_stream_without_credit_lets_others_pass() -> None:
    host, guest = pair()
    greedy, modest = ask(host, guest), ask(host, guest)
    guest.send(greedy, bytes(WINDOW + 1))
    drain(guest)
    guest.send(modest, b"hello")
    assert sent_types(drain(guest)) == [(Type.DATA, modest)]
    assert guest.queued(greedy) > 0


def test_credit_comes_back_as_data_is_consumed() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    guest.send(stream, bytes(3 * WINDOW))
    received = 0
    while received < 3 * WINDOW:
        sizes = [len(event.body) for event in exchange(host, guest)[0] if isinstance(event, DataReceived)]
        assert sizes
        assert sum(sizes) <= WINDOW
        received += sum(sizes)
        host.consume(stream, sum(sizes))
    assert received == 3 * WINDOW


actions = st.lists(
    st.tuples(
        st.sampled_from(["open", "up", "down", "respond", "finish", "end", "fail", "cancel", "eat", "eat"]),
        st.integers(0, 7),
        st.integers(1, 120_000),
        st.integers(1, 80_000),
    ),
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(actions)
def test_any_lawful_conversation_cut_anywhere_breaks_no_rule_and_loses_nothing(
    script: list[tuple[str, int, int, int]],
) -> None:
    """Random calls, data, credit; the wire delivers any number of bytes at a time."""
    host, guest = pair()
    streams: list[int] = []
    sent: dict[tuple[int, str], bytes] = defaultdict(bytes)
    got: dict[tuple[int, str], bytes] = defaultdict(bytes)
    uneaten: dict[tuple[int, str], int] = defaultdict(int)
    dropped: set[int] = set()
    answered: set[int] = set()
    ended: set[tuple[int, str]] = set()
    wires = {"down": b"", "up": b""}

    def deliver(way: str, count: int) -> None:
        source, target = (host, guest) if way == "down" else (guest, host)
        wires[way] += source.pull()
        data, wires[way] = wires[way][:count], wires[way][count:]
        for event in target.receive(data):
            assert not isinstance(event, SessionFailed), event
            if isinstance(event, DataReceived):
                got[event.stream, way] += event.body
                uneaten[event.stream, way] += len(event.body)
                assert uneaten[event.stream, way] <= WINDOW

    def usable(stream: int, way: str) -> bool:
        session = host if way == "down" else guest
        return session.is_open(stream) and (stream, way) not in ended

    def act(what: str, stream: int, size: int) -> None:
        data = (b"%d/%d." % (stream, size) * (size // 4 + 1))[:size]
        if what in ("up", "down") and usable(stream, what):
            (host if what == "down" else guest).send(stream, data)
            sent[stream, what] += data
            if what == "up":
                answered.add(stream)
        elif what == "respond" and usable(stream, "up") and stream not in answered:
            guest.respond(stream, data, end=False)
            answered.add(stream)
        elif what in ("finish", "end"):
            way = "up" if what == "finish" else "down"
            if usable(stream, way):
                (guest if way == "up" else host).send(stream, data, end=True)
                sent[stream, way] += data
                ended.add((stream, way))
                answered.add(stream)
        elif what == "fail" and usable(stream, "up"):
            guest.fail(stream, Code.ABORTED, "enough")
            dropped.add(stream)
        elif what == "cancel" and host.is_open(stream):
            host.cancel(stream)
            dropped.add(stream)
        elif what == "eat":
            for way, session in (("up", host), ("down", guest)):
                session.consume(stream, uneaten[stream, way])
                uneaten[stream, way] = 0

    for what, which, size, bytes_through in script:
        if what == "open" or not streams:
            streams.append(host.open("M", b""))
        else:
            act(what, streams[which % len(streams)], size)
        deliver("down", bytes_through)
        deliver("up", bytes_through)

    quiet = 0
    while quiet < 2:
        before = dict(got)
        for way in ("down", "up"):
            deliver(way, 1 << 20)
        for stream in streams:
            act("eat", stream, 0)
        quiet = quiet + 1 if before == got and not any(wires.values()) else 0
    for (stream, way), data in sent.items():
        if stream in dropped or (way == "down" and (stream, "up") in ended):
            assert data.startswith(got[stream, way])  # the rest was nobody's interest any more
        else:
            assert got[stream, way] == data
    assert (host.state, guest.state) == (State.OPEN, State.OPEN)


# ---------------------------------------------------------------- our own mistakes


@pytest.mark.parametrize(
    "mistake",
    [
        lambda host, guest, stream: guest.reset(NONCE),
        lambda host, guest, stream: host.reset(NONCE),
        lambda host, guest, stream: guest.open("M", b""),
        lambda host, guest, stream: Session(Role.HOST).open("M", b""),
        lambda host, guest, stream: host.send(stream + 2, b"x"),
        lambda host, guest, stream: (host.send(stream, b"", end=True), host.send(stream, b"x")),
        lambda host, guest, stream: (
            guest.respond(stream, b"", end=False),
            guest.respond(stream, b"", end=True),
        ),
        lambda host, guest, stream: (guest.send(stream, b"x"), guest.respond(stream, b"", end=True)),
        lambda host, guest, stream: (guest.fail(stream, 5, ""), guest.fail(stream, 5, "")),
        lambda host, guest, stream: [host.open("M", b"") for _ in range(MAX_STREAMS)],
    ],
)
def test_our_own_mistakes_raise_here(mistake: Callable[[Session, Session, int], object]) -> None:
    host, guest = pair()
    stream = ask(host, guest)
    with pytest.raises(LocalProtocolError):
        mistake(host, guest, stream)
    assert (host.state, guest.state) == (State.OPEN, State.OPEN)


# ---------------------------------------------------------------- the peer's


def credit(amount: int, stream: int) -> bytes:
    return encode(Type.CREDIT, struct.pack("<I", amount), stream=stream)


LIES_OF_A_GUEST = {
    "data on a stream never opened": encode(Type.DATA, b"x", stream=3),
    "data on an even stream": encode(Type.DATA, b"x", stream=2),
    "data beyond credit": encode(Type.DATA, bytes(MAX_BODY), stream=1) * 9,
    "two answers": encode(Type.RESPONSE, b"", stream=1) * 2,
    "an answer behind data": encode(Type.DATA, b"x", stream=1) + encode(Type.RESPONSE, b"", stream=1),
    "an error without a code": encode(Type.ERROR, b"", stream=1),
    "an error out of nowhere": encode(Type.ERROR, b"\1\0", stream=9),
    "data behind the end": encode(Type.DATA, b"", stream=1, flags=END) + encode(Type.DATA, b"x", stream=1),
    "a request": encode(Type.REQUEST, b"\1M", stream=2),
    "a cancellation": encode(Type.CANCEL, stream=1),
    "an unknown type": encode(77, b"", stream=1),
    "credit of a wrong size": encode(Type.CREDIT, b"\1", stream=1),
    "credit without end": credit(2**32 - 1, 1),
    "credit for a stream never opened": credit(1, 5),
    "a reset nobody asked for": encode(Type.RESET, b"x" * 16),
    "a message inside a message": encode(Type.RESPONSE, b"a", stream=1, flags=MORE)
    + encode(Type.RESPONSE, b"b", stream=3, flags=MORE),
    "a message without end": encode(Type.RESPONSE, bytes(MAX_BODY), stream=1, flags=MORE) * 40,
}


@pytest.mark.parametrize("lie", LIES_OF_A_GUEST)
def test_a_lying_guest_ends_its_session_and_nothing_else(lie: str) -> None:
    host, guest = pair()
    ask(host, guest)
    if "inside" in lie:
        ask(host, guest)
    events = host.receive(LIES_OF_A_GUEST[lie])
    assert isinstance(events[-1], SessionFailed), events
    assert host.state is State.FAILED
    assert host.receive(encode(Type.PING, b"12345678")) == []
    assert drain(host) == b""


LIES_OF_A_HOST = {
    "an even stream": encode(Type.REQUEST, b"\1M", stream=2),
    "an old stream": encode(Type.REQUEST, b"\1M", stream=1),
    "no method": encode(Type.REQUEST, b"", stream=3),
    "an empty method": encode(Type.REQUEST, b"\0rest", stream=3),
    "a method cut short": encode(Type.REQUEST, b"\5Hell", stream=3),
    "a method in no alphabet": encode(Type.REQUEST, b"\2\xff\xfe", stream=3),
    "a response": encode(Type.RESPONSE, b"", stream=1),
    "an error": encode(Type.ERROR, b"\1\0", stream=1),
    "data beyond credit": encode(Type.DATA, bytes(MAX_BODY), stream=1) * 9,
    "data behind the end": encode(Type.DATA, b"", stream=1, flags=END) + encode(Type.DATA, b"x", stream=1),
    "a cancellation of nothing": encode(Type.CANCEL, stream=7),
    "a reset without a nonce": encode(Type.RESET, b"short"),
}


@pytest.mark.parametrize("lie", LIES_OF_A_HOST)
def test_a_lying_host_has_to_reset(lie: str) -> None:
    host, guest = pair()
    ask(host, guest)
    events = guest.receive(LIES_OF_A_HOST[lie])
    assert isinstance(events[-1], SessionFailed), events
    assert guest.state is State.WAITING
    again = Session(Role.HOST)
    again.reset(NONCE)
    assert exchange(again, guest) == ([SessionStarted()], [SessionStarted()])


def test_a_guest_refuses_one_call_too_many_without_ending_the_session() -> None:
    host, guest = pair()
    for _ in range(MAX_STREAMS):
        host.open("M", b"")
    exchange(host, guest)
    host.cancel(1)  # the host believes there is room; the guest has not heard yet
    number = host.open("M", b"")
    frames = Decoder().feed(drain(host))
    swapped = [encode(f.type, f.body, stream=f.stream, flags=f.flags) for f in reversed(frames)]
    guest.receive(b"".join(swapped))
    saw = host.receive(drain(guest))
    assert saw == [ErrorReceived(number, Code.RESOURCE_EXHAUSTED, "too many open calls")]


def test_a_cancelled_stream_may_not_go_on_for_ever() -> None:
    host, guest = pair()
    stream = ask(host, guest)
    host.cancel(stream)
    events: list[Event] = []
    for _ in range((WINDOW + MAX_MESSAGE) // MAX_BODY + 2):
        events += host.receive(encode(Type.DATA, bytes(MAX_BODY), stream=stream))
    assert [type(event) for event in events] == [SessionFailed]


def test_pings_of_a_peer_who_does_not_read_pile_up_no_answers() -> None:
    host, _ = pair()
    host.receive(encode(Type.PING, b"12345678") * 100_000)
    assert host.backlog <= 64 * 1024 + HEADER_SIZE + 8


frame_soup = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 9),
        st.integers(0, 3),
        st.one_of(st.binary(max_size=40), st.just(NONCE)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(frame_soup, st.sampled_from(Role))
def test_no_soup_of_frames_raises(soup: list[tuple[int, int, int, bytes]], role: Role) -> None:
    host, guest = pair()
    ask(host, guest)
    ask(host, guest)
    eater = host if role is Role.HOST else guest
    for type, stream, flags, body in soup:
        eater.receive(encode(type, body, stream=stream, flags=flags))
    assert len(drain(eater)) < 4_000_000
