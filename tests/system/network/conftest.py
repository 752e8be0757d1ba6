import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.network.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        lab.close()
