"""``GET /containers/{name}/stats``: the guest's counters in Docker's shape.

``precpu_stats`` is the sample before: clients compute percentages from the pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from engine.containers import status
from engine.context import Engine
from engine.events.hub import Subscription
from engine.http import BadRequest, Request, Response, Router, json_response, streamed
from engine.rpc import PortLayerError
from engine.timestamps import format_ns
from portlayer import portlayer_pb2 as pb
from tether import tether_pb2

__all__ = ["register", "sample"]

INTERVAL_NS = 1_000_000_000
IDLE_SECONDS = 1.0


def register(router: Router, engine: Engine) -> None:
    async def stats(request: Request) -> Response:
        container = await engine.containers.find(request.match["name"])
        one_shot = request.query.flag("one-shot") and request.version >= (1, 41)
        if request.query.flag("stream", default=True):
            if one_shot:
                raise BadRequest("cannot have stream=true and one-shot=true")
            return streamed(_stream(engine, container))
        samples = 1 if one_shot else 2
        return json_response(await _once(engine, container, samples))

    router.add("GET", "/containers/{name}/stats", stats, blocking=True)


async def _once(engine: Engine, container: pb.Container, samples: int) -> dict[str, Any]:
    handle = container.handle
    previous: tether_pb2.Stats | None = None
    current: tether_pb2.Stats | None = None
    if status.is_running(container.state):
        watch = _watch(engine, handle.id, 0 if samples == 1 else INTERVAL_NS)
        async with contextlib.aclosing(watch):
            async for taken in watch:
                previous, current = current, taken
                samples -= 1
                if samples == 0:
                    break
    return sample(handle, previous, current)


async def _stream(engine: Engine, container: pb.Container) -> AsyncIterator[bytes]:
    """One sample a second; empty ones while the container is not running; ends with the container."""
    handle = container.handle
    running = status.is_running(container.state)
    with engine.events.subscribe() as events:
        while True:
            previous: tether_pb2.Stats | None = None
            if running:
                watch = _watch(engine, handle.id, INTERVAL_NS)
                async with contextlib.aclosing(watch):
                    async for taken in watch:
                        yield _line(sample(handle, previous, taken))
                        previous = taken
            now = await engine.containers.get(handle.id)
            if now is None:
                return
            running = status.is_running(now.state)
            if not running or previous is None:
                yield _line(sample(handle, None, None))
                await _change(events, handle.id)


async def _change(events: Subscription, container: str) -> None:
    """Return when something happens to the container, or after a second."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(IDLE_SECONDS):
            while (event := await events.next()) is not None:
                if event.actor == container:
                    return
            await asyncio.Event().wait()  # cut off: the time-out alone remains


async def _watch(engine: Engine, container: str, interval: int) -> AsyncGenerator[tether_pb2.Stats, None]:
    replies = engine.port.stream(
        engine.port.containers.WatchStats, pb.ContainerStatsRequest(id=container, interval=interval)
    )
    async with contextlib.aclosing(replies):
        try:
            async for reply in replies:
                yield reply
        except PortLayerError as error:
            if error.reason not in (pb.NOT_RUNNING, pb.NO_SUCH_CONTAINER, pb.GUEST_LOST):
                raise


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def sample(
    handle: pb.Handle, previous: tether_pb2.Stats | None, current: tether_pb2.Stats | None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": f"/{handle.spec.name}",
        "id": handle.id,
        "read": format_ns(current.time if current else 0),
        "preread": format_ns(previous.time if previous else 0),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(current),
        "precpu_stats": _cpu(previous),
        "pids_stats": {},
        "memory_stats": {},
        "blkio_stats": _blkio(current),
    }
    if current is not None:
        result["pids_stats"] = {"current": current.pids, "limit": current.pids_limit}
        result["memory_stats"] = {
            "usage": current.memory_usage,
            "max_usage": current.memory_max_usage,
            "stats": dict(current.memory_stat),
            "limit": current.memory_limit,
        }
        result["networks"] = {
            item.name: {
                "rx_bytes": item.rx_bytes,
                "rx_packets": item.rx_packets,
                "rx_errors": item.rx_errors,
                "rx_dropped": item.rx_dropped,
                "tx_bytes": item.tx_bytes,
                "tx_packets": item.tx_packets,
                "tx_errors": item.tx_errors,
                "tx_dropped": item.tx_dropped,
            }
            for item in current.networks
        }
    return result


def _cpu(stats: tether_pb2.Stats | None) -> dict[str, Any]:
    if stats is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    return {
        "cpu_usage": {
            "total_usage": stats.cpu_usage,
            "usage_in_kernelmode": stats.cpu_system,
            "usage_in_usermode": stats.cpu_user,
        },
        "system_cpu_usage": stats.system_cpu,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": stats.periods,
            "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_time,
        },
    }


def _blkio(stats: tether_pb2.Stats | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "io_service_bytes_recursive": None,
        "io_serviced_recursive": None,
        "io_queue_recursive": None,
        "io_service_time_recursive": None,
        "io_wait_time_recursive": None,
        "io_merged_recursive": None,
        "io_time_recursive": None,
        "sectors_recursive": None,
    }
    if stats is not None and stats.blocks:
        for key, read, write in (
            ("io_service_bytes_recursive", "read_bytes", "write_bytes"),
            ("io_serviced_recursive", "read_ops", "write_ops"),
        ):
            result[key] = [
                {"major": block.major, "minor": block.minor, "op": op, "value": getattr(block, attribute)}
                for block in stats.blocks
                for op, attribute in (("read", read), ("write", write))
            ]
    return result
