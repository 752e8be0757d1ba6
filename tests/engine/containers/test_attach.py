"""attach and exec as raw connections: framing, half-close, detach keys, slow and silent readers."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.engine.conftest import LIMIT, Api
from tests.engine.fake.state import FakeHost

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "tcp")]


async def frames(reader: asyncio.StreamReader) -> list[tuple[int, bytes]]:
    data = await asyncio.wait_for(reader.read(), LIMIT)
    result: list[tuple[int, bytes]] = []
    while data:
        stream, size = struct.unpack(">BxxxL", data[:8])
        result.append((stream, data[8 : 8 + size]))
        data = data[8 + size :]
    return result


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("version", ["v1.50", "v1.41", "v1.24"])
async def test_output_is_framed_and_the_head_says_so(api: Api, upgrade: bool, version: str) -> None:
    container = await api.create(["warn", "careful"])
    reader, _ = await api.open(
        "POST",
        f"/{version}/containers/{container}/attach?stream=1&stdout=1&stderr=1",
        headers=UPGRADE if upgrade else [],
    )
    status, headers = await api.head(reader)
    assert status == (101 if upgrade else 200)
    multiplexed = upgrade and version == "v1.50"
    kind = "multiplexed" if multiplexed else "raw"
    assert headers["content-type"] == f"application/vnd.docker.{kind}-stream"
    await api("POST", f"/containers/{container}/start")
    assert await frames(reader) == [(2, b"careful\n")]


async def test_input_ends_and_output_goes_on(api: Api) -> None:
    container = await api.create(["cat"], OpenStdin=True, StdinOnce=True)
    reader, writer = await api.open(
        "POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", headers=UPGRADE
    )
    await api.head(reader)
    await api("POST", f"/containers/{container}/start")
    writer.write(b"in and out")
    writer.write_eof()
    assert await frames(reader) == [(1, b"in and out")]
    assert (await api("POST", f"/containers/{container}/wait")).json == {"StatusCode": 0}


async def test_terminal_is_raw_and_detach_keys_leave_it_running(api: Api, host: FakeHost) -> None:
    container = await api.create(["cat"], OpenStdin=True, Tty=True)
    reader, writer = await api.open(
        "POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", headers=UPGRADE
    )
    _, headers = await api.head(reader)
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    await api("POST", f"/containers/{container}/start")
    writer.write(b"typed\x10")
    await writer.drain()
    assert await asyncio.wait_for(reader.readexactly(5), LIMIT) == b"typed"
    writer.write(b"\x11never")
    assert await asyncio.wait_for(reader.read(), LIMIT) == b""
    assert (await api("GET", f"/containers/{container}/json")).json["State"]["Running"] is True
    process = host.machines[container].process
    assert process is not None
    assert b"".join(record.data for record in process.records) == b"typed"


async def test_custom_detach_keys(api: Api) -> None:
    container = await api.run(["cat"], OpenStdin=True, Tty=True)
    query = "stream=1&stdin=1&stdout=1&detachKeys=a,ctrl-b"
    reader, writer = await api.open("POST", f"/containers/{container}/attach?{query}", headers=UPGRADE)
    await api.head(reader)
    writer.write(b"\x10\x11aa")
    await writer.drain()
    assert await asyncio.wait_for(reader.readexactly(3), LIMIT) == b"\x10\x11a"
    writer.write(b"\x02")
    assert await asyncio.wait_for(reader.read(), LIMIT) == b""


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("detachKeys=ctrl-", 400, "Invalid detach keys (ctrl-) provided"),
        ("stream=1", 404, "No such container: nobody"),
    ],
)
async def test_errors_before_the_hijack_are_answers(api: Api, query: str, status: int, message: str) -> None:
    reply = await api("POST", f"/containers/nobody/attach?{query}", headers=UPGRADE)
    assert (reply.status, reply.message) == (status, message)


async def test_paused_container_is_not_attached(api: Api) -> None:
    container = await api.run()
    await api("POST", f"/containers/{container}/pause")
    reply = await api("POST", f"/containers/{container}/attach?stream=1", headers=UPGRADE)
    assert reply.status == 409
    assert reply.message == f"container {container} is paused, unpause the container before attach"


async def test_logs_alone_and_logs_before_the_stream(api: Api) -> None:
    container = await api.run(["echo", "past"])
    await api("POST", f"/containers/{container}/wait")
    reader, _ = await api.open("POST", f"/containers/{container}/attach?logs=1&stdout=1", headers=UPGRADE)
    await api.head(reader)
    assert await frames(reader) == [(1, b"past\n")]


async def test_reader_that_stops_reading_holds_back_the_guest_not_the_engine(api: Api) -> None:
    container = await api.create(["flood", str(64 << 20)])
    reader, writer = await api.open(
        "POST", f"/containers/{container}/attach?stream=1&stdout=1", headers=UPGRADE
    )
    await api.head(reader)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await api("POST", f"/containers/{container}/start")
    for _ in range(5):
        assert (await api("GET", "/_ping")).body == b"OK"
    writer.transport.abort()


async def test_big_output_arrives_whole(api: Api) -> None:
    container = await api.create(["flood", "5000000"])
    reader, _ = await api.open("POST", f"/containers/{container}/attach?stream=1&stdout=1", headers=UPGRADE)
    await api.head(reader)
    await api("POST", f"/containers/{container}/start")
    assert sum(len(data) for _, data in await frames(reader)) == 5_000_000


async def test_client_that_is_killed_ends_the_session_and_the_once_open_input(
    api: Api, host: FakeHost
) -> None:
    container = await api.create(["cat"], OpenStdin=True, StdinOnce=True)
    reader, writer = await api.open(
        "POST", f"/containers/{container}/attach?stream=1&stdin=1&stdout=1", headers=UPGRADE
    )
    await api.head(reader)
    await api("POST", f"/containers/{container}/start")
    writer.close()
    assert (await api("POST", f"/containers/{container}/wait")).json == {"StatusCode": 0}


async def test_watcher_that_is_killed_is_noticed_although_nothing_is_said(api: Api, host: FakeHost) -> None:
    container = await api.run(["sleep"])
    reader, writer = await api.open(
        "POST", f"/containers/{container}/attach?stream=1&stdout=1", headers=UPGRADE
    )
    await api.head(reader)
    assert not host.machines[container].detached.is_set()
    writer.close()
    await asyncio.wait_for(host.machines[container].detached.wait(), LIMIT)


async def test_websocket_is_refused_by_name(api: Api) -> None:
    container = await api.create()
    reply = await api("GET", f"/containers/{container}/attach/ws?stream=1")
    assert reply.status == 501
    assert "websocket" in reply.message
