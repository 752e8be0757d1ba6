"""Whatever a client sends, the fault is the client's: no request makes the engine fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app import build_application
from engine.containers.config import Config
from engine.containers.hostconfig import HostConfig
from engine.context import Engine
from engine.http import ApiError, Query, Request
from tests.engine.conftest import Api

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars | st.sampled_from(["80/tcp", "/data", "data:/x", "always", "bridge", "CMD", "ctrl-p", "1h"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
host_bodies = st.dictionaries(st.sampled_from(sorted(HostConfig.model_fields)), values, max_size=4)
bodies = st.fixed_dictionaries(
    {"Image": st.just("busybox"), "HostConfig": host_bodies},
    optional={name: values for name in Config.model_fields if name != "Image"}
    | {
        "NetworkingConfig": st.fixed_dictionaries(
            {"EndpointsConfig": st.dictionaries(st.sampled_from(["bridge", "none", "x"]), values, max_size=2)}
        )
        | values
    },
)
query_values = st.text(max_size=16) | st.sampled_from(
    ["1", "true", "-1", '{"name":["a"]}', "{", "ctrl-", "9" * 30]
)

ENDPOINTS = [
    ("GET", "/containers/json", ("all", "limit", "size", "filters")),
    ("GET", "/containers/box/json", ("size",)),
    ("GET", "/containers/box/logs", ("stdout", "stderr", "since", "until", "tail", "timestamps", "details")),
    ("GET", "/containers/box/top", ("ps_args",)),
    ("GET", "/containers/box/archive", ("path",)),
    ("HEAD", "/containers/box/archive", ("path",)),
    ("POST", "/containers/box/kill", ("signal",)),
    ("POST", "/containers/box/stop", ("signal", "t")),
    ("POST", "/containers/box/resize", ("h", "w")),
    ("POST", "/containers/box/rename", ("name",)),
    ("POST", "/containers/box/wait", ("condition",)),
    ("POST", "/containers/create", ("name", "platform")),
    ("POST", "/containers/prune", ("filters",)),
    ("GET", "/events", ("since", "until", "filters")),
    ("GET", "/system/df", ("type",)),
    ("DELETE", "/containers/none", ("v", "force", "link")),
    ("GET", "/exec/x/json", ("x",)),
]


class Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def hijack(self, content_type: str) -> Any:
        raise AssertionError("no hijack here")


async def ask(engine: Engine, method: str, path: str, query: str, body: bytes) -> int:
    """Like a connection, but an exception that is no answer comes out."""
    route, match = build_application(engine).router.find(method, path, (1, 50))
    request = Request(
        method=method,
        path=path,
        version=(1, 50),
        query=Query(query),
        headers={"content-type": "application/json"},
        exchange=Body(body),
        peer="test",
        match=match,
    )
    try:
        async with asyncio.timeout(10):
            response = await route.handler(request)
    except ApiError as error:
        assert error.status != 500 or "is not paused" in error.message, error.message
        return error.status
    if isinstance(response.body, AsyncIterator):
        closing = getattr(response.body, "aclose", None)
        if closing is not None:
            await closing()
    return response.status


@pytest.mark.parametrize(("method", "path", "names"), ENDPOINTS)
async def test_queries(engine: Engine, api: Api, method: str, path: str, names: tuple[str, ...]) -> None:
    await api.run(name="box")
    examples: list[str] = []

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.dictionaries(st.sampled_from(names), query_values, max_size=len(names)))
    def collect(values: dict[str, str]) -> None:
        examples.append(
            "&".join(f"{name}={quote(value, errors='replace')}" for name, value in values.items())
        )

    collect()
    for example in dict.fromkeys(examples):
        await ask(engine, method, path, example, b"")


@pytest.mark.parametrize(
    ("method", "path", "strategy"),
    [
        ("POST", "/containers/create", bodies),
        ("POST", "/containers/create", values),
        ("POST", "/containers/box/update", host_bodies),
        (
            "POST",
            "/containers/box/exec",
            st.dictionaries(
                st.sampled_from(["Cmd", "Env", "Tty", "User", "ConsoleSize", "DetachKeys"]), values
            ),
        ),
        ("POST", "/exec/x/start", values),
        ("POST", "/containers/box/start", values),
    ],
)
async def test_bodies(
    engine: Engine, api: Api, method: str, path: str, strategy: st.SearchStrategy[Any]
) -> None:
    await api.run(name="box")
    examples: list[bytes] = []

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strategy)
    def collect(value: Any) -> None:
        examples.append(json.dumps(value).encode("utf-8", "surrogatepass"))

    collect()
    for example in examples:
        await ask(engine, method, path, "", example)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"Image":"busybox","Cmd":["\ud800"]}',
        b'{"Image":"busybox","Cmd":["\xff"]}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 100_000,
        b'{"Image":"busybox","HostConfig":{"Memory":1e999}}',
        b'{"Image":"busybox","HostConfig":{"Memory":NaN}}',
        b'{"Image":"busybox","StopTimeout":99999999999999999999}',
        b'{"Image":"busybox","Healthcheck":{"Test":["CMD","x"],"Retries":9223372036854775807}}',
        b'{"Image":"busybox","HostConfig":{"Ulimits":[{"Name":"core","Soft":-9,"Hard":-9}]}}',
        b'{"Image":"busybox","HostConfig":{"PidsLimit":-9223372036854775808}}',
        b'{"Image":"busybox","HostConfig":{"BlkioWeight":4294967296}}',
        b'{"Image":"busybox","HostConfig":{"OomScoreAdj":2147483648}}',
        b'{"Image":"busybox","HostConfig":{"CpuShares":9223372036854775807,"Memory":9223372036854775807}}',
    ],
)
async def test_hostile_bodies(engine: Engine, body: bytes) -> None:
    await ask(engine, "POST", "/containers/create", "", body)
