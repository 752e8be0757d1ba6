"""Wake-ups by the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from portlayer.journal.rotation import RotationLimit, keep_rotated, rotation_limit
from portlayer.journal.watcher import JournalWatcher
from portlayer.portlayer_pb2 import LogConfig
from tests.portlayer.journal.support import Journal


@pytest_asyncio.fixture
async def watcher() -> AsyncIterator[JournalWatcher]:
    made = JournalWatcher()
    made.open()
    yield made
    made.close()


async def test_growth_wakes_every_watch(watcher: JournalWatcher, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with watcher.watch(tmp_path) as one, watcher.watch(tmp_path) as two:
        journal.out(b"x")
        await asyncio.gather(one.changed(), two.changed())


async def test_rotation_wakes(watcher: JournalWatcher, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with watcher.watch(tmp_path) as watch:
        journal.rotate()
        await watch.changed()


async def test_other_files_do_not_wake(watcher: JournalWatcher, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with watcher.watch(tmp_path) as watch:
        (tmp_path / "console.log").write_text("noise")
        waiting = asyncio.create_task(watch.changed())
        with watcher.watch(tmp_path) as other:
            (tmp_path / "config.json").write_text("noise")
            await asyncio.sleep(0.01)
            assert not waiting.done()
            journal.out(b"x")
            await asyncio.gather(waiting, other.changed())


async def test_a_removed_directory_ends_the_watch(watcher: JournalWatcher, tmp_path: Path) -> None:
    directory = tmp_path / "vm"
    directory.mkdir()
    with watcher.watch(directory) as watch:
        directory.rmdir()
        await watch.changed()
        assert watch.gone
        await watch.changed()  # at once, for ever


async def test_a_missing_directory_is_an_error(watcher: JournalWatcher, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        watcher.watch(tmp_path / "no")


@pytest.mark.parametrize(
    ("log", "limit"),
    [
        (LogConfig(), None),
        (LogConfig(max_size=10), RotationLimit(max_bytes=10, keep=0)),
        (LogConfig(max_size=10, max_files=3), RotationLimit(max_bytes=10, keep=2)),
        (LogConfig(driver="none", max_files=3), RotationLimit(max_bytes=16 << 20, keep=0)),
    ],
)
def test_rotation_limits_are_dockers(log: LogConfig, limit: RotationLimit | None) -> None:
    assert rotation_limit(log) == limit


async def test_a_journal_that_grows_too_large_is_rotated(watcher: JournalWatcher, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    rotated = asyncio.Event()

    async def rotate(keep: int) -> None:
        journal.rotate(keep)
        rotated.set()

    limit = RotationLimit(max_bytes=100, keep=1)
    task = asyncio.create_task(keep_rotated(watcher, journal.path, limit, rotate))
    journal.out(b"x" * 200)
    await rotated.wait()
    assert journal.path.with_name("journal.1").stat().st_size > 100
    task.cancel()
