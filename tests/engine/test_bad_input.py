"""Whatever a client sends to whatever endpoint of Docker's definition: never a 500, never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.app import build_application
from engine.containers.anonymous import AnonymousVolumes
from engine.containers.index import ContainerIndex
from engine.context import Engine
from engine.events.hub import EventHub
from engine.http import ApiError, Query, Request, Router
from engine.http.errors import Disconnected
from engine.images.service import ImageService
from engine.rpc import PortLayer
from tests.definition import requests
from tests.definition.document import Operation, definition
from tests.definition.observer import Observer, observed
from tests.engine.conftest import Api
from tests.engine.images.portlayer import FakePortLayer
from tests.engine.images.portlayer import serving as serving_images
from vch.config import Registry, VchConfig

EXAMPLES = 40
SECONDS = 10.0
BLOCKING_SECONDS = 0.2
OF_IMAGES = ("/images", "/distribution", "/build", "/commit", "/auth")
OPERATIONS = [definition().operations[key] for key in sorted(definition().operations)]


class Exchange:
    """A connection that brings the body and is gone when it is taken over."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def hijack(self, content_type: str) -> Any:
        raise Disconnected("the client went away")


async def ask(router: Router, method: str, path: str, query: str, body: bytes) -> None:
    """Like a connection, but an exception that is no answer comes out."""
    request = Request(
        method=method,
        path=path,
        version=(1, 50),
        query=Query(query),
        headers={"content-type": "application/json"},
        exchange=Exchange(body),
        peer="test",
        has_body=bool(body),
    )
    try:
        route, request.match = router.find(method, path, (1, 50))
        async with asyncio.timeout(BLOCKING_SECONDS if route.blocking else SECONDS):
            response = await route.handler(request)
        if isinstance(response.body, AsyncIterator):
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                async with asyncio.timeout(BLOCKING_SECONDS):
                    await anext(response.body)
            await response.body.aclose()  # type: ignore[attr-defined]
    except TimeoutError:
        assert route.blocking, "hangs"
    except Disconnected:
        pass
    except ApiError as error:
        assert error.status != 500 or "is not" in error.message, (
            error.message
        )  # "is not paused", "is not connected"


@pytest.fixture
async def image_engine(config: VchConfig, tmp_path: Path) -> AsyncIterator[Engine]:
    """The rooms of images whole, with a registry that nobody serves."""
    (tmp_path / "images").mkdir()
    config = dataclasses.replace(
        config,
        run=tmp_path / "images",
        registry=Registry(allowed=("127.0.0.1:1",), insecure=("127.0.0.1:1",)),
    )
    async with serving_images(FakePortLayer(), config.paths.portlayer_socket):
        port, events = PortLayer(config.paths.portlayer_socket), EventHub()
        service = ImageService(config, port, events)
        yield Engine(
            config=config,
            port=port,
            images=service,
            events=events,
            containers=ContainerIndex(port),
            anonymous=AnonymousVolumes(port),
        )
        await service.close()
        await port.close()


def examples(operation: Operation) -> list[tuple[str, str, bytes]]:
    found: list[tuple[str, str, bytes]] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.tuples(requests.path(operation), requests.query(operation), requests.body(operation)))
    def collect(example: tuple[str, str, bytes]) -> None:
        found.append(example)

    collect()
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_bad_input(engine: Engine, api: Api, image_engine: Engine, operation: Operation) -> None:
    await api.run(name="box")
    observer = Observer(evidence=False)
    served = image_engine if operation.path.startswith(OF_IMAGES) else engine
    router = observed(build_application(served), observer).router
    for path, query, body in examples(operation):
        try:
            await ask(router, operation.method, path, query, body)
        except BaseException as error:
            error.add_note(f"{operation.method} {path}?{query}\n{body!r}")
            raise
    assert not observer.violations, "\n".join(observer.violations)
