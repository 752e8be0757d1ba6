"""docker stats."""

from __future__ import annotations

import json

from tests.engine.conftest import Api


async def test_one_sample_with_the_one_before(api: Api) -> None:
    container = await api.run(name="box")
    reply = (await api("GET", f"/containers/{container}/stats?stream=0")).json
    assert (reply["name"], reply["id"]) == ("/box", container)
    assert reply["cpu_stats"]["cpu_usage"]["total_usage"] == 1_000_000_000
    assert reply["precpu_stats"]["cpu_usage"]["total_usage"] == 500_000_000
    assert (reply["cpu_stats"]["system_cpu_usage"], reply["cpu_stats"]["online_cpus"]) == (2_000_000_000, 1)
    assert reply["memory_stats"]["usage"] == 50 << 20
    assert reply["memory_stats"]["stats"] == {"inactive_file": 10 << 20}
    assert reply["networks"]["eth0"]["rx_bytes"] == 2000
    assert reply["pids_stats"]["current"] == 3
    assert reply["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 4096},
        {"major": 8, "minor": 0, "op": "write", "value": 8192},
    ]


async def test_one_shot_does_not_wait_for_a_second(api: Api) -> None:
    container = await api.run()
    reply = (await api("GET", f"/containers/{container}/stats?stream=0&one-shot=1")).json
    assert reply["cpu_stats"]["cpu_usage"]["total_usage"] == 500_000_000
    assert reply["precpu_stats"]["cpu_usage"]["total_usage"] == 0


async def test_stopped_container_has_empty_statistics(api: Api) -> None:
    container = await api.create()
    reply = (await api("GET", f"/containers/{container}/stats?stream=0")).json
    assert (reply["read"], reply["memory_stats"], reply["pids_stats"]) == ("0001-01-01T00:00:00Z", {}, {})


async def test_stream_goes_from_stopped_to_running_to_stopped_to_gone(api: Api) -> None:
    container = await api.create()
    reader, _ = await api.open("GET", f"/containers/{container}/stats")
    await api.head(reader)
    chunks = api.chunks(reader)
    assert json.loads(await anext(chunks))["memory_stats"] == {}
    await api("POST", f"/containers/{container}/start")
    first, second = json.loads(await anext(chunks)), json.loads(await anext(chunks))
    while not first["memory_stats"]:
        first, second = second, json.loads(await anext(chunks))
    assert second["precpu_stats"] == first["cpu_stats"]
    await api("POST", f"/containers/{container}/stop")
    async for chunk in chunks:
        if not json.loads(chunk)["memory_stats"]:
            break
    await api("DELETE", f"/containers/{container}")
    assert [chunk async for chunk in chunks if json.loads(chunk)["memory_stats"]] == []
