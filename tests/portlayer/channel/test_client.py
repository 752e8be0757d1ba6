"""The host's client against the real guest's server, over socket pairs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from portlayer.channel import TetherChannel, TetherError, Timing
from tests.portlayer.channel.support import Link
from tests.tether.support import Guest
from tether.call import Call
from tether.tether_pb2 import Empty, MainState, TimeSetReply, TimeSetRequest
from tether.wire import Code

FAST = Timing(ping=0.2, silence=2, reset=0.1, handshake=10, retry_first=0.01, retry_most=0.05)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "journal")


@pytest_asyncio.fixture
async def link(guest: Guest) -> AsyncIterator[Link]:
    link = Link(guest.host_fd)
    yield link
    await link.close()
    guest.close()


@pytest_asyncio.fixture
async def channel(link: Link) -> AsyncIterator[TetherChannel]:
    channel = TetherChannel(link.connect, name="c", timing=FAST)
    await channel.start()
    yield channel
    await channel.close()


async def test_a_call_is_answered(guest: Guest, channel: TetherChannel) -> None:
    guest.server.unary("TimeSet", TimeSetRequest, lambda request: TimeSetReply(drift=request.time + 1))
    guest.start()
    hello = await channel.ready()
    assert hello.version == "test"
    assert await channel.call("TimeSet", TimeSetRequest(time=41), TimeSetReply) == TimeSetReply(drift=42)


async def test_bulk_from_the_guest_arrives_whole(guest: Guest, channel: TetherChannel) -> None:
    blob = bytes(range(256)) * 40_000

    def copy(_: Empty, call: Call) -> None:
        call.respond(MainState(pid=7))
        sent = 0

        def more() -> None:
            nonlocal sent
            while call.room > 0 and sent < len(blob):
                call.send(blob[sent : sent + 50_000], end=sent + 50_000 >= len(blob))
                sent += 50_000

        call.on_writable(more)
        more()

    guest.server.streaming("Blob", Empty, copy)
    guest.start()
    async with await channel.stream("Blob", Empty()) as stream:
        assert (await stream.response(MainState)).pid == 7
        received = bytearray()
        while body := await stream.receive():
            received += body
    assert received == blob


async def test_bulk_to_the_guest_arrives_whole(guest: Guest, channel: TetherChannel) -> None:
    blob = bytes(range(256)) * 40_000
    received = bytearray()

    def take(_: Empty, call: Call) -> None:
        def data(body: bytes, end: bool) -> None:
            received.extend(body)
            if end:
                call.respond(MainState(pid=len(received) & 0xFFFF))

        call.on_data(data)

    guest.server.deferred("Take", Empty, take)
    guest.start()
    async with await channel.stream("Take", Empty()) as stream:
        for at in range(0, len(blob), 1 << 20):
            await stream.send(blob[at : at + (1 << 20)], end=at + (1 << 20) >= len(blob))
        assert (await stream.response(MainState)).pid == len(blob) & 0xFFFF
    assert received == blob


async def test_an_unknown_method_and_a_raising_handler_are_errors_with_words(
    guest: Guest, channel: TetherChannel
) -> None:
    def broken(_: Empty) -> Empty:
        raise RuntimeError("the disk is on fire")

    guest.server.unary("Broken", Empty, broken)
    guest.start()
    with pytest.raises(TetherError) as unknown:
        await channel.call("Nothing", Empty(), Empty)
    assert unknown.value.code is Code.UNIMPLEMENTED
    with pytest.raises(TetherError, match="RuntimeError: the disk is on fire") as raised:
        await channel.call("Broken", Empty(), Empty)
    assert raised.value.code is Code.INTERNAL
    assert await channel.call("ExecList", Empty(), Empty) == Empty()
    assert any("the disk is on fire" in line for line in guest.log)


async def test_a_guest_that_never_answers_costs_the_time_limit_only(channel: TetherChannel) -> None:
    with pytest.raises(TetherError) as late:
        await channel.call("ExecList", Empty(), Empty, timeout=0.05)
    assert late.value.code is Code.DEADLINE_EXCEEDED


async def test_events_arrive_once_and_in_order_over_a_cut(
    guest: Guest, link: Link, channel: TetherChannel
) -> None:
    guest.events.publish(main=MainState(pid=1))
    guest.start()
    seen = []
    async for event in channel.events():
        seen.append((event.sequence, event.main.pid))
        if len(seen) == 1:
            link.cut_up = 40  # in the middle of the next one, or of the one after that
            guest.run(lambda: [guest.events.publish(main=MainState(pid=n)) for n in (2, 3)] and None)
        if len(seen) == 3:
            break
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert link.connections == 2
    async with asyncio.timeout(10):
        await channel.ready()
