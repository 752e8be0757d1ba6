"""Many clients, some of them asleep: what they cost is counted and bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import json

from engine.context import Engine
from engine.events.hub import QUEUE, RING
from tests.engine.conftest import LIMIT, Api
from tests.engine.fake.state import FakeHost

TASKS_EACH = 8  # an attach is two connections with a reader and a writer each, and the session's own
FLOOD = 64 << 20
HELD_BACK = 8 << 20  # what may lie between the port layer and a client that reads nothing


async def settled(tasks: int) -> None:
    """Wait until no more than so many tasks are left."""
    async with asyncio.timeout(LIMIT):
        while len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0)


async def test_a_hundred_idle_attaches_and_twenty_followers(api: Api, engine: Engine, host: FakeHost) -> None:
    container = await api.run(["sleep"], name="box")
    await api("GET", "/containers/json")
    before = len(asyncio.all_tasks())
    clients = []
    for _ in range(100):
        clients.append(await api.open("POST", f"/containers/{container}/attach?stream=1&stdout=1"))
    for _ in range(20):
        clients.append(await api.open("GET", f"/containers/{container}/logs?stdout=1&follow=1"))
    for reader, _ in clients:
        assert (await api.head(reader))[0] in (101, 200)
    for _ in range(10):  # what the last of them starts has started
        await api("GET", "/containers/json")
    idle = len(asyncio.all_tasks())
    assert idle - before <= TASKS_EACH * len(clients)
    calls = len(host.operations)
    for _ in range(50):  # the others work, and leave nothing behind
        assert len((await api("GET", "/containers/json")).json) == 1
    assert len(host.operations) - calls <= 2 * 50
    await settled(idle)
    for _, writer in clients:
        writer.close()
    await settled(before)


async def test_a_reader_that_never_reads_holds_nobody_up(api: Api, host: FakeHost) -> None:
    container = await api.create(["flood", str(FLOOD)], name="box")
    path = f"/containers/{container}/attach?stream=1&stdout=1&logs=1"
    asleep, _ = await api.open("POST", path)
    await api.head(asleep)
    awake, _ = await api.open("POST", path)
    await api.head(awake)
    assert (await api("POST", "/containers/box/start")).status == 204
    assert (await api("POST", "/containers/box/wait")).json["StatusCode"] == 0
    got = 0
    async with asyncio.timeout(4 * LIMIT):
        while piece := await awake.read(1 << 20):
            got += len(piece)
    assert got >= FLOOD
    assert min(host.machines[container].sent) < HELD_BACK


async def test_an_events_subscriber_that_never_reads_is_cut_off(api: Api, engine: Engine) -> None:
    asleep, _ = await api.open("GET", "/events")
    await api.head(asleep)
    awake, _ = await api.open("GET", "/events")
    await api.head(awake)
    (first, second) = engine.events.subscriptions
    total = 8 * QUEUE
    got = 0

    async def read() -> None:
        nonlocal got
        async for _ in api.chunks(awake):
            got += 1
            if got == total:
                return

    reading = asyncio.create_task(read())
    text = "x" * 200
    for number in range(total):
        engine.events.publish("image", "tag", f"{number}", {"name": text})
        while number - got > QUEUE // 2:
            await asyncio.sleep(0)
    await asyncio.wait_for(reading, LIMIT)
    assert len(engine.events.subscriptions) == 1
    assert max(len(first._queue), len(second._queue)) <= QUEUE
    assert len(engine.events.past()) == RING


async def test_a_thousand_containers_are_listed_with_two_questions(api: Api, host: FakeHost) -> None:
    for number in range(1000):
        await api.create(["sleep"], name=f"c{number}") if number < 5 else host.copy("c0", f"c{number}")
    calls = len(host.operations)
    reply = await api("GET", "/containers/json?all=1")
    assert len(reply.json) == 1000
    assert len(host.operations) - calls == 2


async def test_a_hundred_execs_at_once(api: Api) -> None:
    container = await api.run(["sleep"], name="box")
    await api("GET", "/containers/json")
    before = len(asyncio.all_tasks())

    async def one(number: int) -> bytes:
        made = await api(
            "POST", f"/containers/{container}/exec", {"Cmd": ["echo", str(number)], "AttachStdout": True}
        )
        body = json.dumps({"Tty": False}).encode()
        reader, _ = await api.open(
            "POST", f"/exec/{made.json['Id']}/start", raw=body, headers=[("Content-Type", "application/json")]
        )
        await api.head(reader)
        return await asyncio.wait_for(reader.read(), LIMIT)

    outputs = await asyncio.gather(*(one(number) for number in range(100)))
    assert [output[8:] for output in outputs] == [f"{number}\n".encode() for number in range(100)]
    await settled(before)
