"""Stores in a directory of their own, and a look for what they leave behind."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.disks.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    for tool in ("qemu-storage-daemon", "qemu-img", "mke2fs", "e2fsck"):
        assert shutil.which(tool), f"{tool} is not installed"
    lab = Lab(tmp_path)
    yield lab
    lab.close()
