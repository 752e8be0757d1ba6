"""Attach: output by the journal, input by the channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from portlayer.errors import PortLayerError
from portlayer.interaction.attach import attach
from portlayer.interaction.stdin import StdinPumps
from portlayer.portlayer_pb2 import AttachOpen, InputChunk, OutputChunk, Reason
from tests.portlayer.fakes.guest import FakeGuest
from tests.portlayer.world import World
from tether.tether_pb2 import Process

ID = "1" * 64


class Client:
    """One attached client: its input and what it has seen."""

    def __init__(self, world: World, pumps: StdinPumps, **opening: Any) -> None:
        self._inputs: asyncio.Queue[InputChunk] = asyncio.Queue()
        opening = {"id": ID, "stdout": True, "stderr": True} | opening
        self.chunks = attach(
            world.execution.house,
            pumps,
            world.execution.get(ID),
            AttachOpen(**opening),
            self._input(),
        )

    async def _input(self) -> AsyncIterator[InputChunk]:
        while True:
            yield await self._inputs.get()

    def write(self, data: bytes, *, close: bool = False) -> None:
        self._inputs.put_nowait(InputChunk(data=data, close=close))

    async def ready(self) -> bytes:
        chunk = await anext(self.chunks)
        assert chunk.stream == OutputChunk.READY
        return chunk.mark

    async def rest(self) -> list[tuple[int, bytes, int]]:
        return [(chunk.stream, chunk.data, chunk.exit_code) async for chunk in self.chunks]

    async def close(self) -> None:
        await self.chunks.aclose()


@pytest_asyncio.fixture
async def pumps(world: World) -> StdinPumps:
    return StdinPumps(world.execution.house)


async def test_an_attach_before_the_start_sees_everything(world: World, pumps: StdinPumps) -> None:
    def script(guest: FakeGuest) -> None:
        guest.run()
        guest.output(b"out")
        guest.output(b"err", stream=2)
        guest.exit(3)

    world.script = script
    await world.create(ID)
    client = Client(world, pumps)
    await client.ready()
    await world.execution.start(ID)
    assert await client.rest() == [
        (OutputChunk.STDOUT, b"out", 0),
        (OutputChunk.STDERR, b"err", 0),
        (OutputChunk.EXITED, b"", 3),
    ]


async def test_an_attach_sees_only_what_comes_after_it(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    world.guest(ID).output(b"before")
    client = Client(world, pumps)
    await client.ready()
    world.guest(ID).output(b"after")
    world.guest(ID).exit(0)
    assert [data for _, data, _ in await client.rest()] == [b"after", b""]


async def test_from_the_start_earlier_runs_are_shown_and_do_not_end_it(
    world: World, pumps: StdinPumps
) -> None:
    await world.running(ID)
    world.guest(ID).output(b"one ")
    await world.execution.kill(ID, 9)
    await world.execution.start(ID)
    world.guest(ID).output(b"two ")
    client = Client(world, pumps, from_start=True)
    await client.ready()
    world.guest(ID).output(b"three")
    world.guest(ID).exit(4)
    rest = await client.rest()
    assert b"".join(data for _, data, _ in rest) == b"one two three"
    assert rest[-1] == (OutputChunk.EXITED, b"", 4)


async def test_a_run_that_ends_without_a_word_ends_the_attach(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps)
    await client.ready()
    world.guest(ID).output(b"last words")
    world.guest(ID).crash()
    assert await client.rest() == [(OutputChunk.STDOUT, b"last words", 0), (OutputChunk.EXITED, b"", 137)]


async def test_an_attach_survives_rotations(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps)
    await client.ready()
    for number in range(5):
        world.guest(ID).output(b"%d" % number)
        await world.hypervisor.rotate_journal(ID, keep=9)
    world.guest(ID).exit(0)
    assert b"".join([data for _, data, _ in await client.rest()]) == b"01234"


async def test_a_slow_client_loses_nothing_to_rotation(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps)
    await client.ready()
    container = world.execution.get(ID)
    for number in range(5):
        world.guest(ID).output(b"%d" % number)
        await world.execution.house.rotate_journal(container, 0)
    world.guest(ID).exit(0)
    assert b"".join([data for _, data, _ in await client.rest()]) == b"01234"
    assert not world.execution.house._readers


async def test_only_the_wanted_stream_is_sent(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps, stdout=False)
    await client.ready()
    world.guest(ID).output(b"out")
    world.guest(ID).output(b"err", stream=2)
    world.guest(ID).exit(0)
    assert [data for _, data, _ in await client.rest()] == [b"err", b""]


async def test_stdin_needs_a_container_that_has_one(world: World, pumps: StdinPumps) -> None:
    await world.create(ID)
    client = Client(world, pumps, stdin=True)
    with pytest.raises(PortLayerError, match="no stdin"):
        await client.ready()


async def test_a_container_that_is_being_removed_takes_nobody(world: World, pumps: StdinPumps) -> None:
    await world.create(ID)
    world.faults.fail_on["disks.remove"] = PortLayerError(Reason.NO_SPACE, "full")
    with pytest.raises(PortLayerError):
        await world.execution.remove(ID, force=False)
    with pytest.raises(PortLayerError) as caught:
        await Client(world, pumps).ready()
    assert caught.value.reason == Reason.REMOVAL_IN_PROGRESS


async def fed(guest: FakeGuest, data: bytes) -> None:
    while bytes(guest.stdin) != data:
        await guest.news.wait()


INTERACTIVE = Process(argv=["cat"], open_stdin=True)


async def test_input_before_the_start_is_kept(world: World, pumps: StdinPumps) -> None:
    await world.create(ID, process=INTERACTIVE)
    client = Client(world, pumps, stdin=True)
    await client.ready()
    client.write(b"early ")
    client.write(b"words", close=True)
    await world.execution.start(ID)
    guest = world.guest(ID)
    while not guest.stdin_closed:
        await guest.news.wait()
    assert guest.stdin == b"early words"
    await client.close()


async def test_two_clients_share_one_stdin(world: World, pumps: StdinPumps) -> None:
    await world.running(ID, process=INTERACTIVE)
    one, two = Client(world, pumps, stdin=True), Client(world, pumps, stdin=True)
    await one.ready()
    await two.ready()
    one.write(b"a")
    await fed(world.guest(ID), b"a")
    two.write(b"b")
    await fed(world.guest(ID), b"ab")
    await one.close()
    two.write(b"c")
    await fed(world.guest(ID), b"abc")
    await two.close()


async def test_a_lost_connection_repeats_and_loses_no_input(world: World, pumps: StdinPumps) -> None:
    await world.running(ID, process=INTERACTIVE)
    client = Client(world, pumps, stdin=True)
    await client.ready()
    client.write(b"a")
    guest = world.guest(ID)
    await fed(guest, b"a")
    guest.taking_stdin = False  # acknowledgements stop: what follows is sent again
    client.write(b"b" * 1000)
    await fed(guest, b"a" + b"b" * 1000)
    guest.taking_stdin = True
    world.channel(ID).cut()
    client.write(b"c", close=True)
    await fed(guest, b"a" + b"b" * 1000 + b"c")
    while not guest.stdin_closed:
        await guest.news.wait()
    await client.close()


async def test_a_port_layer_restart_goes_on_where_the_guest_is(world: World) -> None:
    await world.running(ID, process=INTERACTIVE)
    world.guest(ID).stdin += b"typed before"
    await world.crash()
    await world.boot()
    client = Client(world, StdinPumps(world.execution.house), stdin=True)
    await client.ready()
    client.write(b"!")
    await fed(world.guest(ID), b"typed before!")
    await client.close()


async def test_the_pump_ends_with_its_run(world: World, pumps: StdinPumps) -> None:
    await world.running(ID, process=INTERACTIVE)
    client = Client(world, pumps, stdin=True)
    await client.ready()
    client.write(b"x")
    await fed(world.guest(ID), b"x")
    world.guest(ID).exit(0)
    await client.rest()
    while world.execution.house._background:
        await asyncio.sleep(0)
    await world.execution.start(ID)
    again = Client(world, pumps, stdin=True)
    await again.ready()
    again.write(b"y")
    await fed(world.guest(ID), b"y")
    await again.close()


async def test_an_attach_goes_on_at_a_mark(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps)
    marks = [await client.ready()]
    for number in range(3):
        world.guest(ID).output(b"%d" % number, stream=1 + number % 2)
        marks.append((await anext(client.chunks)).mark)
    world.guest(ID).exit(6)
    await client.rest()
    for number, mark in enumerate(marks):
        again = Client(world, pumps, mark=mark)
        await again.ready()
        rest = await again.rest()
        assert b"".join(data for _, data, _ in rest) == b"012"[number:]
        assert rest[-1] == (OutputChunk.EXITED, b"", 6)


async def test_a_resumed_attach_to_a_run_that_ended_without_a_word_ends(
    world: World, pumps: StdinPumps
) -> None:
    await world.running(ID)
    client = Client(world, pumps)
    mark = await client.ready()
    world.guest(ID).crash()
    await client.rest()
    again = Client(world, pumps, mark=mark)
    await again.ready()
    assert await again.rest() == [(OutputChunk.EXITED, b"", 137)]


async def test_input_is_acknowledged_from_where_it_begins(world: World, pumps: StdinPumps) -> None:
    await world.running(ID, process=Process(argv=["cat"], open_stdin=True))
    first = Client(world, pumps, stdin=True)
    await first.ready()
    first.write(b"one")
    acks = []
    while not acks or acks[-1] != 3:
        chunk = await anext(first.chunks)
        assert chunk.stream == OutputChunk.STDIN_ACK
        acks.append(chunk.offset)
    assert acks[0] == 0
    second = Client(world, pumps, stdin=True)
    await second.ready()
    assert (await anext(second.chunks)).offset == 3
    await first.close()
    await second.close()


async def test_what_is_no_mark_is_refused(world: World, pumps: StdinPumps) -> None:
    await world.running(ID)
    client = Client(world, pumps, mark=b"?")
    with pytest.raises(PortLayerError, match="a mark"):
        await client.ready()
