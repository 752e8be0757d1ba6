"""docker logs."""

from __future__ import annotations

import asyncio

import pytest

from engine.containers.logs import stamp
from tests.engine.conftest import LIMIT, Api
from tests.engine.fake.state import FakeHost


def framed(*records: tuple[int, bytes]) -> bytes:
    return b"".join(
        bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in records
    )


async def finished(api: Api, *argv: str, **config: object) -> str:
    container = await api.run(argv, **config)
    await api("POST", f"/containers/{container}/wait")
    return container


async def test_streams_are_framed(api: Api) -> None:
    out = await finished(api, "echo", "out")
    err = await finished(api, "warn", "err")
    reply = await api("GET", f"/containers/{out}/logs?stdout=1&stderr=1")
    assert reply.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    assert reply.body == framed((1, b"out\n"))
    assert (await api("GET", f"/containers/{err}/logs?stdout=1")).body == b""
    assert (await api("GET", f"/containers/{err}/logs?stderr=1")).body == framed((2, b"err\n"))
    old = await api("GET", f"/v1.41/containers/{out}/logs?stdout=1")
    assert old.headers["content-type"] == "application/vnd.docker.raw-stream"


async def test_terminal_is_raw(api: Api) -> None:
    container = await finished(api, "echo", "out", Tty=True)
    reply = await api("GET", f"/containers/{container}/logs?stdout=1")
    assert (reply.headers["content-type"], reply.body) == ("application/vnd.docker.raw-stream", b"out\n")


async def test_timestamps_details_tail(api: Api, host: FakeHost) -> None:
    container = await finished(
        api,
        "echo",
        "out",
        Labels={"tier": "front", "other": "x"},
        Env=["COLOUR=red"],
        HostConfig={"LogConfig": {"Type": "json-file", "Config": {"labels": "tier", "env-regex": "^COL"}}},
    )
    time = host.machines[container].records[0].time
    reply = await api("GET", f"/containers/{container}/logs?stdout=1&timestamps=1")
    assert reply.body == framed((1, f"{stamp(time)} out\n".encode()))
    reply = await api("GET", f"/containers/{container}/logs?stdout=1&details=1")
    assert reply.body == framed((1, b"COLOUR=red,tier=front out\n"))
    assert (await api("GET", f"/containers/{container}/logs?stdout=1&tail=0")).body == b""
    assert (await api("GET", f"/containers/{container}/logs?stdout=1&since={time // 10**9 + 5}")).body == b""
    assert (await api("GET", f"/containers/{container}/logs?stdout=1&tail=abc")).body != b""


async def test_follow_ends_with_the_container(api: Api) -> None:
    container = await api.run(["cat"], OpenStdin=True)
    reader, _ = await api.open("GET", f"/containers/{container}/logs?stdout=1&follow=1")
    assert (await api.head(reader))[0] == 200
    await api("POST", f"/containers/{container}/stop")
    assert await asyncio.wait_for(reader.read(5), LIMIT) == b"0\r\n\r\n"


async def test_lost_bytes_are_shown(api: Api, host: FakeHost) -> None:
    container = await finished(api, "echo", "out")
    host.machines[container].records[0].lost = 7
    reply = await api("GET", f"/containers/{container}/logs?stdout=1")
    assert reply.body == framed((1, b"[mooring: 7 bytes of output were lost here]\nout\n"))


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "Bad parameters: you must choose at least one stream"),
        ("stdout=1&since=yesterday", 400, "invalid value for since: 'yesterday' is not a time"),
    ],
)
async def test_bad_requests(api: Api, query: str, status: int, message: str) -> None:
    container = await api.create()
    reply = await api("GET", f"/containers/{container}/logs?{query}")
    assert (reply.status, reply.message) == (status, message)


async def test_container_without_logs(api: Api) -> None:
    container = await finished(api, "echo", "x", HostConfig={"LogConfig": {"Type": "none"}})
    reply = await api("GET", f"/containers/{container}/logs?stdout=1")
    assert (reply.status, reply.message) == (500, "configured logging driver does not support reading")


async def test_reader_that_never_reads(api: Api) -> None:
    container = await finished(api, "flood", str(32 << 20))
    reader, writer = await api.open("GET", f"/containers/{container}/logs?stdout=1")
    await api.head(reader)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(5):
        assert (await api("GET", "/_ping")).status == 200
    writer.transport.abort()
    reply = await api("GET", f"/containers/{container}/logs?stdout=1")
    assert len(reply.body) > 32 << 20
