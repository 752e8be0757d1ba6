"""Fixtures for tests of the port layer's upper rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.portlayer.world import World


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A host with a port layer on it."""
    host = World(tmp_path)
    await host.boot()
    yield host
    await host.close()
