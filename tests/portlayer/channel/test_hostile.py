"""Guests that flood, lie, fall silent or never answer: each costs its own channel, and bounded memory."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from portlayer.channel import ChannelClosed, ChannelLost, TetherChannel, TetherError, Timing
from tether.session import WINDOW
from tether.tether_pb2 import Empty, Event, EventsRequest, HelloReply, MainState
from tether.wire import END, MAX_BODY, MORE, PADDING, Code, Decoder, Frame, Type, encode

FAST = Timing(ping=0.05, silence=0.3, reset=0.05, handshake=1, retry_first=0.01, retry_most=0.05)
HELLO = HelloReply(version="liar", boot_nonce="n").SerializeToString()


class Liar:
    """A guest made of frames: each connection is handed to ``behave`` when it has come up."""

    def __init__(self) -> None:
        self.connections = 0
        self.behave: Callable[[Peer], Awaitable[None]] = self.answer_hello
        self.polite_from = 1 << 30  # connections from this one on are answered properly
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        behave = self.answer_hello if self.connections >= self.polite_from else self.behave
        self._tasks.append(asyncio.create_task(self._run(Peer(reader, writer), behave)))
        return await asyncio.open_connection(sock=theirs)

    async def _run(self, peer: Peer, behave: Callable[[Peer], Awaitable[None]]) -> None:
        try:
            await behave(peer)
            while await peer.reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            peer.writer.transport.abort()

    async def answer_hello(self, peer: Peer) -> None:
        await peer.handshake()
        await peer.hello()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    async def next(self, type: Type) -> Frame:
        """The next frame of a type; others are passed over."""
        while True:
            while self._frames:
                frame = self._frames.pop(0)
                if frame.type == type:
                    return frame
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("the host has gone")
            self._frames += self._decoder.feed(data)

    def say(self, type: int, body: bytes = b"", *, stream: int = 0, flags: int = 0) -> None:
        self.writer.write(encode(type, body, stream=stream, flags=flags))

    async def handshake(self) -> None:
        reset = await self.next(Type.RESET)
        self.writer.write(PADDING)
        self.say(Type.RESET, reset.body)

    async def hello(self) -> None:
        request = await self.next(Type.REQUEST)
        self.say(Type.RESPONSE, HELLO, stream=request.stream, flags=END)

    async def forever(self, data: bytes) -> None:
        while True:
            self.writer.write(data)
            await self.writer.drain()


@pytest_asyncio.fixture
async def liar() -> AsyncIterator[Liar]:
    liar = Liar()
    yield liar
    await liar.close()


@pytest_asyncio.fixture
async def channel(liar: Liar) -> AsyncIterator[TetherChannel]:
    channel = TetherChannel(liar.connect, name="c", timing=FAST)
    yield channel
    await channel.close()


def after_hello(then: Callable[[Peer], Awaitable[None]]) -> Callable[[Peer], Awaitable[None]]:
    async def behave(peer: Peer) -> None:
        await peer.handshake()
        await peer.hello()
        await then(peer)

    return behave


async def lie(peer: Peer) -> None:
    request = await peer.next(Type.REQUEST)
    peer.say(Type.DATA, b"x", stream=request.stream + 2)


async def flood_data(peer: Peer) -> None:
    request = await peer.next(Type.REQUEST)
    await peer.forever(encode(Type.DATA, bytes(MAX_BODY), stream=request.stream))


async def flood_noise(peer: Peer) -> None:
    await peer.next(Type.REQUEST)
    await peer.forever(b"\xa7" * 65536)


async def flood_answer(peer: Peer) -> None:
    request = await peer.next(Type.REQUEST)
    await peer.forever(encode(Type.RESPONSE, bytes(MAX_BODY), stream=request.stream, flags=MORE))


async def hang_up(peer: Peer) -> None:
    await peer.next(Type.REQUEST)
    peer.writer.close()


async def fall_silent(peer: Peer) -> None:
    await peer.next(Type.REQUEST)


async def reset_itself(peer: Peer) -> None:
    await peer.next(Type.REQUEST)
    peer.say(Type.RESET, os.urandom(16))


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (lie, "never opened"),
        (flood_noise, "noise"),
        (flood_answer, "more than"),
        (hang_up, "closed"),
        (fall_silent, "nothing for"),
        (reset_itself, "did not ask for"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_call_is_lost_with_the_reason_and_the_next_connection_is_good(
    liar: Liar, channel: TetherChannel, behave: Callable[[Peer], Awaitable[None]], words: str
) -> None:
    liar.behave = after_hello(behave)
    liar.polite_from = 2
    await channel.start()
    async with asyncio.timeout(20):
        stream = await channel.stream("Anything", Empty())
        with pytest.raises(ChannelLost, match=words):
            while await stream.receive():
                pass
        with pytest.raises(ChannelLost, match=words):
            await stream.response(Empty)
        with pytest.raises(ChannelLost, match=words):
            await stream.send(b"x")
        assert (await channel.ready()).version == "liar"
    assert liar.connections == 2


async def test_data_beyond_credit_is_not_kept(liar: Liar, channel: TetherChannel) -> None:
    liar.behave = after_hello(flood_data)
    liar.polite_from = 2
    await channel.start()
    stream = await channel.stream("Bulk", Empty())
    again = asyncio.Event()
    channel.on_session(lambda _: again.set())
    async with asyncio.timeout(20):
        await again.wait()
    received = 0
    with pytest.raises(ChannelLost, match="0 of credit left"):
        while body := await stream.receive():
            received += len(body)
    assert received == WINDOW


async def silent(peer: Peer) -> None:
    """Never answers the reset."""


async def old_stuff_without_end(peer: Peer) -> None:
    await peer.forever(encode(Type.DATA, bytes(MAX_BODY), stream=1))


async def no_hello(peer: Peer) -> None:
    await peer.handshake()
    while True:
        ping = await peer.next(Type.PING)
        peer.say(Type.PONG, ping.body)


async def hello_in_no_language(peer: Peer) -> None:
    await peer.handshake()
    request = await peer.next(Type.REQUEST)
    peer.say(Type.RESPONSE, b"\xff\xff\xff", stream=request.stream, flags=END)


async def hello_refused(peer: Peer) -> None:
    await peer.handshake()
    request = await peer.next(Type.REQUEST)
    peer.say(Type.ERROR, struct.pack("<H", 999) + b"\xff go away", stream=request.stream)


@pytest.mark.parametrize(
    "behave",
    [silent, old_stuff_without_end, no_hello, hello_in_no_language, hello_refused],
    ids=lambda value: value.__name__,
)
async def test_a_guest_that_does_not_come_up_is_tried_again(
    liar: Liar, channel: TetherChannel, behave: Callable[[Peer], Awaitable[None]]
) -> None:
    liar.behave = behave
    liar.polite_from = 2
    await channel.start()
    async with asyncio.timeout(20):
        assert (await channel.ready()).version == "liar"
    assert liar.connections == 2


async def test_an_answer_of_the_wrong_type_costs_its_call_only(liar: Liar, channel: TetherChannel) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        peer.say(Type.RESPONSE, b"\xff\xff\xff", stream=request.stream, flags=END)
        request = await peer.next(Type.REQUEST)
        peer.say(Type.DATA, b"", stream=request.stream, flags=END)
        request = await peer.next(Type.REQUEST)
        peer.say(Type.RESPONSE, MainState(pid=3).SerializeToString(), stream=request.stream)

    liar.behave = after_hello(behave)
    await channel.start()
    for method, words in (("Main", "sent no MainState"), ("Main", "did not answer Main")):
        with pytest.raises(TetherError, match=words) as wrong:
            await channel.call(method, Empty(), MainState)
        assert wrong.value.code is Code.DATA_LOSS
    assert (await channel.call("Main", Empty(), MainState)).pid == 3  # without END: we cancel it ourselves
    assert liar.connections == 1


async def test_what_arrived_before_the_loss_is_still_received(liar: Liar, channel: TetherChannel) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        peer.say(Type.RESPONSE, b"", stream=request.stream)
        peer.say(Type.DATA, b"last words", stream=request.stream)
        peer.writer.close()

    liar.behave = after_hello(behave)
    await channel.start()
    stream = await channel.stream("Attach", Empty())
    await stream.response(Empty)
    assert await stream.receive() == b"last words"
    with pytest.raises(ChannelLost):
        await stream.receive()


async def test_a_reader_who_does_not_read_holds_a_window_and_no_more(
    liar: Liar, channel: TetherChannel
) -> None:
    filled = asyncio.Event()

    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        for _ in range(WINDOW // MAX_BODY):
            peer.say(Type.DATA, bytes(MAX_BODY), stream=request.stream)
        peer.say(Type.PING, b"12345678")
        await peer.next(Type.PONG)
        filled.set()
        credit = await peer.next(Type.CREDIT)
        peer.say(Type.DATA, b"x", stream=request.stream, flags=END)
        assert struct.unpack("<I", credit.body)[0] <= WINDOW

    liar.behave = after_hello(behave)
    await channel.start()
    async with asyncio.timeout(20), await channel.stream("Bulk", Empty()) as stream:
        await filled.wait()
        received = 0
        while body := await stream.receive():
            received += len(body)
    assert received == WINDOW + 1


async def test_sending_to_a_guest_that_gives_no_credit_waits_without_piling_up(
    liar: Liar, channel: TetherChannel
) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        received = 0
        while received + MAX_BODY <= WINDOW:
            received += len((await peer.next(Type.DATA)).body)
        peer.say(Type.ERROR, struct.pack("<H", Code.ABORTED) + b"enough", stream=request.stream)

    liar.behave = after_hello(behave)
    await channel.start()
    async with asyncio.timeout(20), await channel.stream("CopyIn", Empty()) as stream:
        with pytest.raises(TetherError, match="enough") as error:
            await stream.send(bytes(10_000_000))
    assert error.value.code is Code.ABORTED


async def test_sending_behind_the_guests_end_is_an_error(liar: Liar, channel: TetherChannel) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        peer.say(Type.RESPONSE, b"", stream=request.stream, flags=END)

    liar.behave = after_hello(behave)
    await channel.start()
    async with await channel.stream("Attach", Empty()) as stream:
        await stream.response(Empty)
        assert await stream.receive() == b""
        with pytest.raises(TetherError, match="has ended Attach"):
            await stream.send(b"x")


async def test_one_liar_does_not_disturb_an_honest_guest(liar: Liar) -> None:
    liar.behave = after_hello(flood_noise)
    honest = Liar()

    async def answer_all(peer: Peer) -> None:
        while True:
            request = await peer.next(Type.REQUEST)
            peer.say(Type.RESPONSE, b"", stream=request.stream, flags=END)

    honest.behave = after_hello(answer_all)
    bad = TetherChannel(liar.connect, name="bad", timing=FAST)
    good = TetherChannel(honest.connect, name="good", timing=FAST)
    await bad.start()
    await good.start()
    try:
        async with asyncio.timeout(60):
            pokes = asyncio.create_task(poke(bad))
            for _ in range(200):
                await good.call("Main", Empty(), Empty)
            pokes.cancel()
    finally:
        await bad.close()
        await good.close()
        await honest.close()
    assert honest.connections == 1


async def poke(channel: TetherChannel) -> None:
    while True:
        try:
            await channel.call("Main", Empty(), Empty)
        except ChannelLost:
            continue


async def test_a_connection_that_cannot_be_made_is_tried_again_and_close_ends_all_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = 0
    enough = asyncio.Event()

    async def refuse() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        nonlocal tries
        tries += 1
        if tries == 3:
            enough.set()
        raise FileNotFoundError("channel.sock")

    caplog.set_level("INFO")
    channel = TetherChannel(refuse, name="c1", timing=FAST)
    await channel.start()
    waiting = asyncio.create_task(channel.ready())
    calling = asyncio.create_task(channel.call("Main", Empty(), MainState))
    events = asyncio.create_task(anext(channel.events()))  # type: ignore[arg-type]
    await enough.wait()
    assert not channel.connected
    await channel.close()
    for task in (waiting, calling, events):
        with pytest.raises(ChannelClosed):
            await task
    with pytest.raises(ChannelClosed):
        await channel.ready()
    with pytest.raises(RuntimeError, match="closed"):
        await channel.start()
    assert "channel c1: no connection: channel.sock" in caplog.text


async def test_events_told_twice_or_out_of_order_are_seen_once(liar: Liar, channel: TetherChannel) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        for sequence in (1, 2, 2, 1, 3):
            peer.say(Type.DATA, Event(sequence=sequence).SerializeToString(), stream=request.stream)

    liar.behave = after_hello(behave)
    await channel.start()
    seen = []
    async with asyncio.timeout(20):
        async for event in channel.events():
            seen.append(event.sequence)
            if event.sequence == 3:
                break
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b""])
async def test_events_that_are_none_are_asked_for_again(
    liar: Liar, channel: TetherChannel, garbage: bytes
) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.next(Type.REQUEST)
        peer.say(Type.DATA, Event(sequence=5).SerializeToString(), stream=request.stream)
        peer.say(Type.DATA, garbage, stream=request.stream, flags=0 if garbage else END)
        request = await peer.next(Type.REQUEST)
        assert EventsRequest.FromString(request.body[7:]).after == 5
        peer.say(Type.ERROR, struct.pack("<H", Code.OUT_OF_RANGE) + b"what?", stream=request.stream)
        request = await peer.next(Type.REQUEST)
        assert EventsRequest.FromString(request.body[7:]).after == 0
        peer.say(Type.DATA, Event(sequence=1).SerializeToString(), stream=request.stream)

    liar.behave = after_hello(behave)
    await channel.start()
    seen = []
    async with asyncio.timeout(20):
        async for event in channel.events():
            seen.append(event.sequence)
            if len(seen) == 2:
                break
    assert seen == [5, 1]


async def test_closing_ends_open_calls(liar: Liar, channel: TetherChannel) -> None:
    await channel.start()
    stream = await channel.stream("Attach", Empty())
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    await channel.close()
    with pytest.raises(ChannelClosed):
        await waiting


async def test_closing_at_the_moment_of_a_loss_ends_too(liar: Liar) -> None:
    peers: list[Peer] = []

    async def keep(peer: Peer) -> None:
        peers.append(peer)

    liar.behave = after_hello(keep)
    for turns in range(8):  # of the event loop between the loss and the closing
        channel = TetherChannel(liar.connect, name="c", timing=FAST)
        await channel.start()
        await channel.ready()
        peers[-1].say(Type.RESET, os.urandom(16))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await channel.close()


async def test_a_guest_that_does_not_read_is_given_up(
    liar: Liar, channel: TetherChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portlayer.channel.connection._BACKLOG", 100_000)

    async def chatter(peer: Peer) -> None:
        while True:  # alive, by its looks
            peer.say(Type.PONG, b"12345678")
            await peer.writer.drain()
            await asyncio.sleep(0.01)

    liar.behave = after_hello(chatter)
    liar.polite_from = 2
    await channel.start()
    await channel.ready()
    calls = [
        asyncio.create_task(channel.call("Main", HelloReply(version="x" * 500_000), Empty)) for _ in range(8)
    ]
    async with asyncio.timeout(20):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(result) for result in results} == {"the guest does not read"}


async def test_too_many_calls_and_too_large_ones_are_refused_here(liar: Liar, channel: TetherChannel) -> None:
    await channel.start()
    with pytest.raises(TetherError, match="the most is") as large:
        await channel.stream("Exec", HelloReply(version="x" * (2 << 20)))
    assert large.value.code is Code.RESOURCE_EXHAUSTED
    streams = [await channel.stream("Attach", Empty()) for _ in range(1023)]
    with pytest.raises(TetherError, match="open already"):
        for _ in range(3):
            streams.append(await channel.stream("Attach", Empty()))
    assert channel.connected
