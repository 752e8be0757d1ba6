import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.system.network.lab import Lab, Vch


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        lab.close()


@pytest_asyncio.fixture
async def tenant(lab: Lab) -> AsyncIterator[Vch]:
    tenant = await lab.vch().open()
    yield tenant
    await tenant.manager.close()
