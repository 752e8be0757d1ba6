"""Logs of containers that run, have ended, are followed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from portlayer.errors import PortLayerError
from portlayer.execution.states import Status
from portlayer.interaction.logs import read_logs
from portlayer.portlayer_pb2 import LogConfig, LogsRequest, Reason
from tests.portlayer.world import World, always

ID = "1" * 64


def logs(world: World, **fields: Any) -> Any:
    request = LogsRequest(id=ID, **({"stdout": True, "stderr": True, "tail": -1} | fields))
    records = read_logs(world.execution.house, world.execution.get(ID), request)
    return (record async for record in records if record.stream)  # without the mark at its beginning


async def said(world: World, **fields: Any) -> list[tuple[int, bytes]]:
    return [(record.stream, record.data) async for record in logs(world, **fields)]


async def test_all_runs_and_rotated_files_are_read(world: World) -> None:
    await world.running(ID)
    world.guest(ID).output(b"one\n")
    await world.hypervisor.rotate_journal(ID, keep=3)
    world.guest(ID).output(b"two\n", stream=2)
    await world.execution.kill(ID, 9)
    await world.execution.start(ID)
    world.guest(ID).output(b"three\n")
    assert await said(world) == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert await said(world, stderr=False) == [(1, b"one\n"), (1, b"three\n")]
    assert await said(world, tail=2) == [(2, b"two\n"), (1, b"three\n")]
    assert await said(world, tail=0) == []


async def test_a_container_that_never_ran_has_no_logs(world: World) -> None:
    await world.create(ID)
    assert await said(world) == []
    assert await said(world, follow=True) == []


async def test_following_goes_on_to_the_end_of_the_run(world: World) -> None:
    await world.running(ID)
    world.guest(ID).output(b"a")
    stream = logs(world, follow=True)
    assert (await anext(stream)).data == b"a"
    world.guest(ID).output(b"b")
    assert (await anext(stream)).data == b"b"
    world.guest(ID).output(b"c")
    world.guest(ID).exit(0)
    assert [record.data async for record in stream] == [b"c"]


async def test_following_with_tail_goes_on_behind_the_unfinished_line(world: World) -> None:
    await world.running(ID)
    world.guest(ID).output(b"one\ntwo\nthr")
    stream = logs(world, follow=True, tail=2)
    assert (await anext(stream)).data == b"two\nthr"
    world.guest(ID).output(b"ee\n")
    assert (await anext(stream)).data == b"ee\n"
    await stream.aclose()


async def test_following_survives_an_automatic_restart(world: World) -> None:
    await world.running(ID, restart=always())
    stream = logs(world, follow=True)
    first = asyncio.ensure_future(anext(stream))
    world.guest(ID).output(b"first")
    assert (await first).data == b"first"
    container = world.execution.get(ID)
    world.guest(ID).exit(1)
    while container.status is not Status.RESTARTING:
        await container.moved()
    following = asyncio.ensure_future(anext(stream))
    await world.clock.slept()
    while container.status is not Status.RUNNING:
        await container.moved()
    world.guest(ID).output(b"second")
    assert (await following).data == b"second"
    await world.execution.kill(ID, 9)
    assert [record async for record in stream] == []


async def test_following_ends_when_until_has_come(world: World) -> None:
    await world.running(ID)
    world.guest(ID).output(b"a")
    until = world.clock.time + 50_000_000
    stream = logs(world, follow=True, until=until)
    assert (await anext(stream)).data == b"a"
    rest = asyncio.ensure_future(anext(stream, None))
    await asyncio.sleep(0)
    world.clock.time = until + 1
    assert await rest is None


async def test_lines_with_times(world: World) -> None:
    await world.running(ID)
    guest = world.guest(ID)
    guest.write(1, b"a\nb", stream=1, at=1000)
    guest.write(1, b"c\n", stream=1, at=2000)
    guest.write(1, b"rest", stream=1, at=3000)
    got = [(r.time, r.data) async for r in logs(world, lines=True)]
    assert got[:2] == [(1000, b"a\n"), (2000, b"bc\n")]
    assert got[2][1] == b"rest"


async def test_since_and_until(world: World) -> None:
    await world.running(ID)
    for time in (1000, 2000, 3000):
        world.guest(ID).write(1, b"%d\n" % time, stream=1, at=time)
    assert await said(world, since=2000) == [(1, b"2000\n3000\n")]
    assert await said(world, until=2000) == [(1, b"1000\n2000\n")]


async def test_lost_records_are_counted(world: World) -> None:
    await world.running(ID)
    world.guest(ID).output(b"a")
    world.guest(ID).writer.record(1, b"lost", stream=1)
    world.guest(ID).output(b"b")
    assert sum([record.lost async for record in logs(world)]) == 1


async def test_driver_none_cannot_be_read(world: World) -> None:
    await world.running(ID, log=LogConfig(driver="none"))
    with pytest.raises(PortLayerError, match="configured logging driver does not support reading") as caught:
        await said(world)
    assert caught.value.reason == Reason.NOT_SUPPORTED


async def test_a_stream_must_be_chosen(world: World) -> None:
    await world.running(ID)
    with pytest.raises(PortLayerError, match="at least one stream"):
        await said(world, stdout=False, stderr=False)


async def test_a_running_journal_is_rotated_at_its_limit(world: World) -> None:
    await world.running(ID, log=LogConfig(max_size=1000, max_files=2))
    rotated = world.vm(ID).journal.with_name("journal.1")
    with world.execution.house.watcher.watch(rotated.parent) as watch:
        world.guest(ID).output(b"x" * 2000 + b"\n")
        while not rotated.exists():
            await watch.changed()
    world.guest(ID).output(b"after\n")
    assert b"".join([data for _, data in await said(world)]).endswith(b"x\nafter\n")
    assert world.execution.get(ID).record.state.rotated
